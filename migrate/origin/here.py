"""``migrate --check`` without a HOST: what this host alone can tell; nothing is asked of another one."""

from __future__ import annotations

from dataclasses import dataclass

from migrate import checks, inventory, problems
from migrate.checks import here, names, obstacles, reconnections
from migrate.errors import MigrateError, Reason, Refused
from migrate.origin import chronicle, claim, contained, plan, unowned
from migrate.origin.account import Account
from migrate.pb import session_pb2 as pb
from migrate.processes import network
from migrate.processes.chosen import Subject
from migrate.processes.oci import Container
from migrate.recovery import settle
from migrate.request import Request, apart


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    :ivar addresses: the service addresses that would move.
    :ivar reasons: all against it; none where nothing on this host is in the way.
    :ivar notes: what would be different after a move, although it is no reason to refuse.
    """

    process: pb.ProcessInventory
    addresses: list[str]
    reasons: list[Reason]
    notes: list[str]


def check(subject: Subject, request: Request, account: Account, container: Container | None) -> None:
    """Look at the process *subject* and at this host. How it ended is in the report."""
    report = account.report
    try:
        with problems.step("check", "origin"), claim.of_tree(request.pid), account.phase("check"):
            settle.clear_the_way(request.pid, account.note, claim.overlapping(request.pid))
            subject.require()
            found = look(request, container, report.trace.id)
            report.trace.addresses = found.addresses
            report.notes += [*found.notes, *unowned.notes(subject.tasks, found.addresses), here.LEFT_OUT]
            if found.reasons:
                raise Refused(found.reasons)
    except MigrateError as error:
        account.fail(error)


def look(
    request: Request, container: Container | None, migration_id: str, known: pb.HostInventory | None = None
) -> Look:
    """What *request* would move, and what on this host is in the way. Nothing is changed, and nothing held still.

    :param known: this host, where it was looked at already; who shares the service addresses is looked at anew.
    :raises MigrateError: it cannot be looked at, or has ended.
    """
    with network.stay(container.network if container else ""):
        _, process = plan.described(request, container)
        chronicle.process(process)
        mine = _with_sharers(known, process) if known is not None else inventory.host(process=process)
        contained.at_home(mine, pb.HostInventory(), container)
        kind, _, found = plan.switched(request, process, mine, pb.HostInventory())
        # What is forwarded goes to an address of the destination, which is not known.
        addresses = [one for one in found if not one.stays]
        needed, lent = plan.look_at_switch(process, addresses, apart(kind)[1] or "none", migration_id)
        reasons = here.refusals(process, mine, request.along, needed, switch=kind)
    reasons += contained.reasons(container, process.container.archive)
    notes = [
        *checks.notes(process, mine, switch=kind),
        *names.notes(process),
        *reconnections.notes(process, request.along),
    ]
    notes += [*obstacles.notes(process), *lent]
    return Look(process, [one.ip for one in addresses], reasons, notes)


def _with_sharers(known: pb.HostInventory, process: pb.ProcessInventory) -> pb.HostInventory:
    mine = pb.HostInventory()
    mine.CopyFrom(known)
    inventory.add_sharers(mine, process)
    return mine
