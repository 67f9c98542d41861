"""Whether the addresses that clients use can move with the process. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from migrate.checks import address_words, addresses_on_both, forwarded, interfaces, to_forward
from migrate.checks.containers import at_its_interface
from migrate.checks.interfaces import Ip
from migrate.checks.subject import DESTINATION, ORIGIN, Subject
from migrate.errors import Reason
from migrate.inventory import ports
from migrate.request import SWITCH


def addresses_movable(subject: Subject) -> Iterator[Reason]:
    """Each service address can leave the origin alone, and has a place on the destination."""
    for address in ports.service_addresses(subject.process):
        ip = ipaddress.ip_address(address)
        if to_forward.stays(subject, ip):
            yield from forwarded.movable(subject, ip)
        elif subject.of_service == SWITCH:
            yield from _can_leave(subject, ip)
            yield from _can_arrive(subject, ip)
        elif subject.on_both:
            yield from addresses_on_both.movable(subject, ip)
            if subject.whole_address:
                yield from _shared(subject, ip)


def _can_leave(subject: Subject, ip: Ip) -> Iterator[Reason]:
    used, origin = address_words.uses(subject, ip), subject.origin
    if ip.is_link_local:
        text = f"{ip}, {used}, is a link-local address: it belongs to an interface of this host"
        yield Reason("address-link-local", ORIGIN, text, address_words.use_another(subject, ip))
    elif ip.packed not in interfaces.addresses(origin):
        text = f"{ip}, {used}, is not an address of this host"
        remedy = f"Add it: {interfaces.addition(origin, ip, str(ip))}"
        if not address_words.users(subject, ip):
            remedy = "Name one that `ip -brief addr` shows."
        elif ip.version != 6 and address_words.only_connections(subject, ip):
            remedy = f"{address_words.NOT_ON}. Else: {remedy}"
        yield Reason("address-missing", ORIGIN, text, remedy)
    elif str(ip) in {*origin.ssh_addresses, *origin.own_addresses}:
        text = f"{ip}, {used}, is the address of {origin.hostname} itself and cannot leave it"
        yield Reason("address-of-host", ORIGIN, text, address_words.use_another(subject, ip))
    else:
        if str(ip) in subject.needed:
            yield Reason("address-needed", ORIGIN, *subject.needed[str(ip)])
        yield from _shared(subject, ip)


def _shared(subject: Subject, ip: Ip) -> Iterator[Reason]:
    for other in subject.origin.taken_ports:
        if other.local_ip == ip.packed:
            holder = other.holder or "no process (on its way between two, or not accepted yet)"
            text = f"{ports.name(other)} of {holder} is on the service address {ip} too"
            yield Reason(
                "address-shared",
                ORIGIN,
                text,
                f"End that process, or: {address_words.use_another(subject, ip)}",
            )


def _can_arrive(subject: Subject, ip: Ip) -> Iterator[Reason]:
    there = subject.destination
    if ip.is_link_local:
        return
    if ip.packed in interfaces.addresses(there):
        text = f"the service address {ip} is there already"
        remedy = f"Remove it there: {interfaces.removal(there, ip)}"
        if str(ip) in {*there.ssh_addresses, *there.own_addresses}:
            remedy = "Choose another host: this address is its own."
        yield Reason("address-taken", DESTINATION, text, remedy)
    elif subject.process.container.network:
        yield from at_its_interface(subject, ip)
    elif not any(ip in network for network in interfaces.networks(there)):
        text = f"no interface that is up is on the network of the service address {ip}"
        remedy = (
            "Choose a host on the same network, or connect an interface to it and give it an address there."
        )
        yield Reason("address-no-network", DESTINATION, text, remedy)
