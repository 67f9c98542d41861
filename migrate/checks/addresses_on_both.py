"""Whether a process can move whose addresses are on both hosts, so that the network alone is switched. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks import address_words, interfaces
from migrate.checks.interfaces import Ip
from migrate.checks.subject import ORIGIN, Subject
from migrate.errors import Reason


def movable(subject: Subject, ip: Ip) -> Iterator[Reason]:
    """The address is on both hosts, and whatever is sent to the process comes by the network."""
    used = address_words.uses(subject, ip)
    if subject.process.container.network:
        text = f"{ip}, {used}, is in the network namespace of a container: no --switch {subject.of_service} for it"
        remedy = "Leave out --switch: the container's address moves along."
        yield Reason("switch-container", ORIGIN, text, remedy)
    elif ip.is_link_local or str(ip) in {*subject.origin.ssh_addresses, *subject.origin.own_addresses}:
        text = f"{ip}, {used}, is an address of {subject.origin.hostname} itself"
        yield Reason("address-of-host", ORIGIN, text, address_words.use_another(subject, ip))
    elif missing := [role for role, host in subject.hosts() if ip.packed not in interfaces.addresses(host)]:
        for role in missing:
            text = (
                f"{ip}, {used}, is not on this host, as it must be on both for --switch {subject.of_service}"
            )
            yield Reason("address-missing", role, text, f"Add it: {interfaces.quiet_addition(ip)}")
    elif str(ip) in subject.needed:
        yield Reason("switch-impossible", ORIGIN, *subject.needed[str(ip)])
