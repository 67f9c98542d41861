"""Both hosts looked at for what migrate needs of them: no process is named, and nothing is touched."""

from __future__ import annotations

from migrate import inventory, limits, place, problems
from migrate.checks import requirements
from migrate.checks.requirements import Finding
from migrate.checks.subject import DESTINATION
from migrate.errors import MigrateError, Reason, Refused
from migrate.link import message_checks
from migrate.origin.session import Met, greeted
from migrate.pb import session_pb2 as pb
from migrate.request import Request


def here() -> tuple[pb.HostInventory, list[Finding]]:
    """This host, and each requirement of it."""
    found = inventory.host()
    return found, requirements.of_host(found, "origin")


def there(request: Request, own: pb.HostInventory) -> list[Finding]:
    """Each requirement of the host that *request* names, as an agent there sees it; no error is raised for it.

    :param own: this host.
    """
    try:
        with problems.step("connect", DESTINATION), greeted(request, place.new_id(), logged=False) as met:
            told = _told(met)
            version = f"{request.way.agent} {met.hello.version}"
            return [
                Finding(DESTINATION, "agent", True, f"{version} answers on {met.hello.hostname}"),
                *requirements.of_host(told, DESTINATION, request.host),
                *requirements.of_both(own, told),
            ]
    except Refused as error:
        return [Finding.lacking(DESTINATION, "agent", reason) for reason in error.reasons]
    except MigrateError as error:
        told_of = error.told()
        reason = Reason(told_of.kind, DESTINATION, told_of.text, told_of.hint)
        return [Finding.lacking(DESTINATION, "agent", reason)]


def _told(met: Met) -> pb.HostInventory:
    """What the agent says of its host, asked about no process.

    :raises MigrateError: it does not say.
    """
    met.link.send(pb.ProcessInventory())
    told: pb.HostInventory = met.link.expect(pb.HostInventory, timeout_s=limits.ANSWER_S)
    message_checks.check(told)
    met.link.send(pb.Goodbye())
    return told
