"""Whether sockets that wait at an address which the origin has not can be bound to it on the destination. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks import interfaces
from migrate.checks.subject import DESTINATION, Subject
from migrate.errors import Reason
from migrate.inventory import ports


def nowhere_there(subject: Subject) -> Iterator[Reason]:
    """Where a socket waits at an IPv4 address that the origin has not, CRIU may bind it to that."""
    there = subject.destination
    for address in subject.process.nowhere:
        if not there.nonlocal_bind and ports.packed(address) not in interfaces.addresses(there):
            text = (
                f"{address}, to which the process has bound a socket although {subject.origin.hostname} has it not"
                " (IP_FREEBIND), is not an address of it either, and CRIU binds before it sets the option"
            )
            remedy = "Permit it there until the process has moved: sysctl net.ipv4.ip_nonlocal_bind=1"
            yield Reason("address-nowhere", DESTINATION, text, remedy)
