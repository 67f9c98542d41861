"""What an idle server on a wildcard address is reached by, nobody but the user knows. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from migrate.checks import to_forward
from migrate.checks.subject import ORIGIN, Subject, names
from migrate.errors import Reason
from migrate.inventory import ports
from migrate.request import SWITCH
from tcpcp.record.ici import State


def notes(subject: Subject) -> list[str]:
    """Return what the user should know although it is no reason to refuse, because of --no-address."""
    where = _idle_wildcards(subject)
    if not where:
        return []
    return [
        f"no address moves with the process: it listens on {where} and has no client now, so clients that"
        " come later reach the origin, unless you see to it that they find it there"
    ]


def address_named(subject: Subject) -> Iterator[Reason]:
    """What an idle server on a wildcard address is reached by, nobody but the user knows."""
    where = _idle_wildcards(subject)
    switched = subject.of_service == SWITCH or (subject.on_both and subject.of_service != "none")
    if where and switched and not subject.along.no_address:
        text = (
            f"the process listens on {where} and has no client now, so it does not show which address its clients"
            " use; they would still come to the origin"
        )
        remedy = (
            "Pass --address ADDR for the address that they use, which then moves too; or --no-address if they find"
            " it on the destination some other way."
        )
        yield Reason("address-unknown", ORIGIN, text, remedy)


def _idle_wildcards(subject: Subject) -> str:
    """Where the process listens on wildcard addresses, "" if not, or if an address is known that moves."""
    process = subject.process
    listening = [one for one in process.sockets if one.state == State.LISTEN and not any(one.local_ip)]
    used = map(ipaddress.ip_address, ports.service_addresses(process))
    if not all(to_forward.stays(subject, ip) for ip in used):
        return ""
    return names(dict.fromkeys(ports.name(one) for one in listening))
