"""Whether the sockets of the process can be moved, and their addresses with them. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from migrate.checks.subject import DESTINATION, ORIGIN, Subject, names
from migrate.errors import Reason
from migrate.inventory import ports, translated
from migrate.pb.session_pb2 import HostInventory, ProcessInventory, TcpSocket
from tcpcp.record.ici import State

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

#: What can be done about a socket, by a word of the problem that `tcpcp.endpoint.inspect` names.
_SOCKET_REMEDIES = (
    ("translated", translated.REMEDY),
    ("MSG_ZEROCOPY", "Switch zero-copy sending off in the program (SO_ZEROCOPY)."),
    ("has not", "Try again when the program has read that, or has closed the connection."),
    ("state", "Wait a moment and try again: the connection is being opened or has just ended."),
    ("urgent", "Try again when the program has read it."),
    ("MD5", "Let the program close the connection, or use it without TCP-MD5."),
    ("TCP-AO", "Let the program close the connection, or use it without TCP-AO."),
    ("protocol tls", "Switch kernel TLS off in the program (e.g. nginx: ssl_conf_command Options -KTLS)."),
    ("Multipath", "Let the program use plain TCP (sysctl net.mptcp.enabled=0, and start it again)."),
)


def notes(process: ProcessInventory) -> list[str]:
    """Return what the user should know although it is no reason to refuse, because of --no-address."""
    where = _idle_wildcards(process)
    if not where:
        return []
    return [
        f"no address moves with the process: it listens on {where} and has no client now, so clients that"
        " come later reach the origin, unless you see to it that they find it there"
    ]


def address_named(subject: Subject) -> Iterator[Reason]:
    """What an idle server on a wildcard address is reached by, nobody but the user knows."""
    where = _idle_wildcards(subject.process)
    if where and subject.options.switch == "address" and not subject.options.no_address:
        text = (
            f"the process listens on {where} and has no client now, so it does not show which address its clients"
            " use; they would still come to the origin"
        )
        remedy = (
            "Pass --address ADDR for the address that they use, which then moves too; or --no-address if they find"
            " it on the destination some other way."
        )
        yield Reason("address-unknown", ORIGIN, text, remedy)


def _idle_wildcards(process: ProcessInventory) -> str:
    """Where the process listens on wildcard addresses, "" if not, or if an address is known that moves."""
    listening = [one for one in process.sockets if one.state == State.LISTEN and not any(one.local_ip)]
    if ports.service_addresses(process):
        return ""
    return names(dict.fromkeys(ports.name(one) for one in listening))


def sockets_whole(subject: Subject) -> Iterator[Reason]:
    """The kernel tells everything about each socket."""
    for one in subject.process.sockets:
        if one.problem:
            text = f"{one.problem} (descriptor {one.fd} of {subject.who(one.pid)})"
            yield Reason("socket", ORIGIN, text, _socket_remedy(one.problem))


def _socket_remedy(problem: str) -> str:
    for word, remedy in _SOCKET_REMEDIES:
        if word in problem:
            return remedy
    return "Let the program close the connection."


def peers_elsewhere(subject: Subject) -> Iterator[Reason]:
    """The far end of a connection is in the tree, or on a third host."""
    inside = _inside(subject.process)
    here, there = _addresses(subject.origin), _addresses(subject.destination)
    for one in subject.process.sockets:
        if not ports.is_connection(one):
            continue
        if ports.is_loopback(one.peer_ip) or one.peer_ip in here:
            if inside(one):
                continue
            text = f"the other end of {ports.name(one)} is a process on this host that is not moved"
            remedy = "Name a parent of both processes, or let one of them close the connection."
            yield Reason("peer-on-origin", ORIGIN, text, remedy)
        elif one.peer_ip in there:
            text = f"the other end of {ports.name(one)} is on the destination itself"
            remedy = "Choose a third host, or let the process close the connection."
            yield Reason("peer-on-destination", DESTINATION, text, remedy)


def addresses_movable(subject: Subject) -> Iterator[Reason]:
    """Each service address can leave the origin alone, and has a place on the destination."""
    if subject.options.switch != "address":
        return
    for address in ports.service_addresses(subject.process):
        ip = ipaddress.ip_address(address)
        yield from _can_leave(subject, ip)
        yield from _can_arrive(subject, ip)


def _can_leave(subject: Subject, ip: _Ip) -> Iterator[Reason]:
    uses, origin = _uses(subject, ip), subject.origin
    if ip.is_link_local:
        text = f"{ip}, {uses}, is a link-local address: it belongs to an interface of this host"
        yield Reason("address-link-local", ORIGIN, text, _use_another(subject, ip))
    elif ip.packed not in _addresses(origin):
        text = f"{ip}, {uses}, is not an address of this host"
        remedy = f"Add it: {_how(subject, ip, str(ip))}"
        if not _users(subject, ip):
            remedy = "Name one that `ip -brief addr` shows."
        yield Reason("address-missing", ORIGIN, text, remedy)
    elif str(ip) in {*origin.ssh_addresses, *origin.own_addresses}:
        text = f"{ip}, {uses}, is the address of {origin.hostname} itself and cannot leave it"
        yield Reason("address-of-host", ORIGIN, text, _use_another(subject, ip))
    else:
        if str(ip) in subject.needed:
            yield Reason("address-needed", ORIGIN, *subject.needed[str(ip)])
        yield from _shared(subject, ip)


def _shared(subject: Subject, ip: _Ip) -> Iterator[Reason]:
    for other in subject.origin.taken_ports:
        if other.local_ip == ip.packed:
            holder = other.holder or "no process (on its way between two, or not accepted yet)"
            text = f"{ports.name(other)} of {holder} is on the service address {ip} too"
            yield Reason("address-shared", ORIGIN, text, f"End that process, or: {_use_another(subject, ip)}")


def _can_arrive(subject: Subject, ip: _Ip) -> Iterator[Reason]:
    there = subject.destination
    if ip.is_link_local:
        return
    if ip.packed in _addresses(there):
        text = f"the service address {ip} is there already"
        remedy = f"Remove it there: ip addr del {ip}/{_length_at(there, ip)} dev {_device_at(there, ip)}"
        if str(ip) in {*there.ssh_addresses, *there.own_addresses}:
            remedy = "Choose another host: this address is its own."
        yield Reason("address-taken", DESTINATION, text, remedy)
    elif not any(ip in network for network in _networks(there)):
        text = f"no interface that is up is on the network of the service address {ip}"
        remedy = (
            "Choose a host on the same network, or connect an interface to it and give it an address there."
        )
        yield Reason("address-no-network", DESTINATION, text, remedy)


def ports_free(subject: Subject) -> Iterator[Reason]:
    """Nothing on the destination keeps a port that the process has."""
    for taken in subject.destination.taken_ports:
        if ports.is_connection(taken):
            text = f"it has the connection {ports.name(taken)} of the process already"
        else:
            text = f"port {taken.local_port} is taken by {taken.holder or 'a socket'} on {ports.name(taken)}"
        remedy = f"End what uses it there; ss -tanp 'sport = :{taken.local_port}' shows it."
        yield Reason("port-taken", DESTINATION, text, remedy)


# --- small things -----------------------------------------------------------------------------------------


def _use_another(subject: Subject, ip: _Ip) -> str:
    return (
        f"Add an address for the process alone, {_how(subject, ip, 'ADDRESS')} (a free one), start the"
        " process again on that, and let its clients use it."
    )


def _how(subject: Subject, ip: _Ip, address: str) -> str:
    lengths = [network.prefixlen for network in _networks(subject.origin) if ip in network]
    usual = 24 if ip.version == 4 else 64
    return f"ip addr add {address}/{(lengths or [usual])[0]} dev {_device_at(subject.origin, ip)}"


def _uses(subject: Subject, ip: _Ip) -> str:
    users = _users(subject, ip)
    if users or str(ip) in subject.process.other_addresses:
        return f"which the process uses for {names(users) or 'UDP or raw sockets'}"
    return "which --address names"


def _users(subject: Subject, ip: _Ip) -> list[str]:
    return [ports.name(one) for one in subject.process.sockets if one.local_ip == ip.packed]


def _inside(process: ProcessInventory) -> Callable[[TcpSocket], bool]:
    """Return whether the other end of a connection is in the tree, accepted or waiting to be."""
    sockets = process.sockets
    ends = {(one.peer_ip, one.peer_port, one.local_ip, one.local_port) for one in sockets}
    listening = {(one.local_ip, one.local_port) for one in sockets if not ports.is_connection(one)}
    wildcards = {port for ip, port in listening if not any(ip)}
    return lambda one: (
        (one.local_ip, one.local_port, one.peer_ip, one.peer_port) in ends
        or (one.peer_ip, one.peer_port) in listening
        or one.peer_port in wildcards
    )


def _addresses(host: HostInventory) -> set[bytes]:
    texts = (text for interface in host.interfaces for text in interface.addresses)
    return {ports.packed(text.partition("/")[0]) for text in texts}


def _networks(host: HostInventory) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Yield the networks that the host is on; an address that is a network of its own says nothing."""
    for interface in host.interfaces:
        for text in interface.addresses:
            network = ipaddress.ip_network(text, strict=False)
            if interface.up and network.prefixlen < network.max_prefixlen and not network.is_loopback:
                yield network


def _device_at(host: HostInventory, ip: _Ip) -> str:
    """Return the interface that has *ip*, else one on its network, else a word to be replaced."""
    for interface in host.interfaces:
        if any(ip == ipaddress.ip_interface(text).ip for text in interface.addresses):
            return interface.name
    for interface in host.interfaces:
        if interface.name != "lo" and any(
            ip in ipaddress.ip_interface(t).network for t in interface.addresses
        ):
            return interface.name
    return "DEVICE"


def _length_at(host: HostInventory, ip: _Ip) -> int:
    for interface in host.interfaces:
        for text in interface.addresses:
            if ip == ipaddress.ip_interface(text).ip:
                return ipaddress.ip_interface(text).network.prefixlen
    return ip.max_prefixlen
