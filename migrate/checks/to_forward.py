"""What would be forwarded, and to which address of the destination. Pure."""

from __future__ import annotations

import ipaddress

from migrate.checks import address_words, interfaces
from migrate.checks.interfaces import Ip
from migrate.checks.subject import Subject
from migrate.inventory import ports
from migrate.pb.session_pb2 import HostInventory, ProcessInventory
from tcpcp.endpoint.isolation import Flow
from tcpcp.record.ici import Endpoint


def stays(subject: Subject, ip: Ip) -> bool:
    """Whether *ip* stays at the origin, and the connections from it are forwarded, as it is switched.

    Where service addresses are switched as well it is one that cannot go, the origin's own or one that others use,
    and the process has connected from it, and is not reached there, nor shall it be.
    """
    if not subject.forward or not subject.of_service:
        return bool(subject.forward)
    here = subject.origin
    kept = str(ip) in {*here.ssh_addresses, *here.own_addresses}
    kept = kept or goes_home(subject, ip)
    if subject.whole_address:
        kept = kept or any(other.local_ip == ip.packed for other in here.taken_ports)
    named = str(ip) in subject.along.addresses
    return kept and not named and address_words.only_outgoing(subject, ip)


def goes_home(subject: Subject, ip: Ip) -> bool:
    """Whether connections from *ip* can only be forwarded ones: it is the destination's, and not this host's."""
    here, there = interfaces.addresses(subject.origin), interfaces.addresses(subject.destination)
    return ip.packed in there - here and address_words.only_outgoing(subject, ip)


def neighbour(there: HostInventory, ip: str, prefix_length: int) -> str:
    """The destination's own address on the network of the origin's address *ip*; "" if it has none there."""
    network = ipaddress.ip_interface(f"{ip}/{prefix_length}").network
    for interface in there.interfaces:
        for text in interface.addresses if interface.up else ():
            found = ipaddress.ip_interface(text)
            networks = (
                network,
                found.network,
            )  # a service address that is on both hosts is on none of its own
            if found.ip in network and all(one.prefixlen < one.max_prefixlen for one in networks):
                return str(found.ip)
    return ""


def flows(process: ProcessInventory) -> list[Flow]:
    """Its connections."""
    found = (one for one in process.sockets if ports.is_connection(one))
    return [Flow(_end(one.local_ip, one.local_port), _end(one.peer_ip, one.peer_port)) for one in found]


def _end(ip: bytes, port: int) -> Endpoint:
    return Endpoint(ipaddress.ip_address(ip), port)


def has(host: HostInventory, ip: str) -> bool:
    """Whether it is an address of *host*, as text."""
    return any(text.partition("/")[0] == ip for interface in host.interfaces for text in interface.addresses)
