"""Whether a process can move whose connections keep the origin's own address, and are forwarded. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks import address_words, interfaces, to_forward
from migrate.checks.interfaces import Ip
from migrate.checks.subject import DESTINATION, ORIGIN, Subject, names
from migrate.errors import Reason
from migrate.inventory import ports

_SEGMENT = "Choose a host that is on one network with this one, and has an address there."


def movable(subject: Subject, ip: Ip) -> Iterator[Reason]:
    """The connections at *ip* can be forwarded, and are all there is."""
    used, here = address_words.uses(subject, ip), subject.origin
    if subject.process.container.network:
        text = f"{ip}, {used}, is in the network namespace of a container: no --switch forward for it"
        remedy = "Leave out --switch: the container's address moves along."
        yield Reason("switch-container", ORIGIN, text, remedy)
    elif ip.version == 6:
        text = f"{ip}, {used}, is an IPv6 address: these are not forwarded yet"
        yield Reason("forward-ipv6", ORIGIN, text, address_words.use_another(subject, ip))
    elif to_forward.goes_home(subject, ip):
        if str(ip) in subject.needed:
            yield Reason("switch-impossible", ORIGIN, *subject.needed[str(ip)])
    elif ip.packed not in interfaces.addresses(here):
        text = f"{ip}, {used}, is not an address of this host"
        remedy = f"{address_words.NOT_ON}."
        yield Reason("address-missing", ORIGIN, text, remedy)
    elif str(ip) in subject.process.other_addresses:
        text = f"{ip} is used for sockets that are no TCP connections (UDP, raw), which are not forwarded"
        yield Reason("forward-other-sockets", ORIGIN, text, address_words.use_another(subject, ip))
    elif not address_words.users(subject, ip):
        remedy = "Leave out --address: what is forwarded are the connections that there are."
        yield Reason("forward-unused", ORIGIN, f"{ip}, {used}, has no connection", remedy)
    else:
        yield from _there(subject, ip)


def _there(subject: Subject, ip: Ip) -> Iterator[Reason]:
    there = subject.destination
    if ip.packed in interfaces.addresses(there):
        text = f"{ip}, from which the process has connected, is an address of the destination too"
        remedy = f"Remove it there: {interfaces.removal(there, ip)}"
        yield Reason("address-taken", DESTINATION, text, remedy)
    elif not any(ip in network for network in interfaces.networks(there)):
        text = (
            f"no interface that is up is on the network of {ip}, by which its connections would be forwarded"
        )
        yield Reason("address-no-network", DESTINATION, text, _SEGMENT)
    elif (via := subject.forward.partition(":")[2]) and not to_forward.has(there, via):
        text = f"{via}, to which connections are to be forwarded, is not an address of the destination"
        yield Reason("forward-elsewhere", DESTINATION, text, f"Leave out :{via}, or name one that it has.")
    elif str(ip) in subject.needed:
        yield Reason("switch-impossible", ORIGIN, *subject.needed[str(ip)])


def nobody_comes(subject: Subject) -> Iterator[Reason]:
    """The process is not reached by anybody new: whoever comes to the origin's address later is not forwarded."""
    if not subject.forward or subject.of_service:
        return
    if listening := ports.reached(subject.process):
        where = names(dict.fromkeys(map(ports.name, listening)))
        text = f"the process listens on {where}, and who connects to it later would still come to the origin"
        remedy = (
            "Let a server have a service address, which its clients use; --switch auto takes that along, and has"
            " what the process has connected from this host's own address forwarded."
        )
        yield Reason("forward-listener", ORIGIN, text, remedy)
