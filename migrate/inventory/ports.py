"""When two TCP sockets cannot exist on one host: the kernel's rules for local addresses and ports.

Pure. Source: net/ipv4/inet_connection_sock.c inet_csk_bind_conflict(), net/ipv6/ipv6_sockglue.c.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from migrate.pb.session_pb2 import ProcessInventory, TcpSocket

LISTEN = 10
_CLOSE = 7
_TIME_WAIT = 6
_WILDCARD_4, _WILDCARD_6 = bytes(4), bytes(16)


def packed(address: str) -> bytes:
    """Return the bytes of an address as text; an interface behind ``%`` is left out."""
    return ipaddress.ip_address(address.partition("%")[0]).packed


def text(ip: bytes, port: int) -> str:
    """Return address and port as people write them; ``*`` for the wildcard address."""
    if not any(ip):
        return f"*:{port}"
    return f"[{address(ip)}]:{port}" if len(ip) == 16 else f"{address(ip)}:{port}"


def address(ip: bytes) -> str:
    """Return an address as text; what is no address (from a broken message) as hexadecimal digits."""
    return str(ipaddress.ip_address(ip)) if len(ip) in (4, 16) else ip.hex()


def is_loopback(ip: bytes) -> bool:
    """Whether every host has the address for itself."""
    return len(ip) in (4, 16) and ipaddress.ip_address(ip).is_loopback


def reached(process: ProcessInventory) -> list[TcpSocket]:
    """The listeners at which others than this host come in."""
    return [one for one in process.sockets if one.state == LISTEN and not is_loopback(one.local_ip)]


def service_addresses(process: ProcessInventory) -> list[str]:
    """Return the addresses that the process's sockets are bound to, and that have to move with it.

    Wildcards need none, nor does what is bound nowhere, and every host has its own loopback addresses. In the order
    of the sockets; then the addresses that ``process.service_addresses`` names already, because the user did.
    """
    found = dict.fromkeys(bytes(one.local_ip) for one in process.sockets if not one.nowhere)
    found |= dict.fromkeys(packed(text) for text in process.other_addresses)
    found |= dict.fromkeys(packed(text) for text in process.service_addresses)
    return [address(ip) for ip in found if any(ip) and not is_loopback(ip)]


def is_connection(one: TcpSocket) -> bool:
    """Whether the socket has a peer."""
    return one.state not in (LISTEN, _CLOSE)


def has_ended(one: TcpSocket) -> bool:
    """Whether the host only remembers a connection, see :mod:`migrate.destination.still_free`."""
    return one.state == _TIME_WAIT


def name(one: TcpSocket) -> str:
    """Name a socket as ``ss`` shows it: both ends, or the local one."""
    local = text(one.local_ip, one.local_port)
    return f"{local} - {text(one.peer_ip, one.peer_port)}" if is_connection(one) else local


def clash(ours: TcpSocket, theirs: TcpSocket) -> bool:
    """Whether *ours* cannot be restored on a host that has *theirs*.

    A socket that listens, or is bound, keeps its port on its addresses. Connections on one port live beside
    each other and beside a new listener with SO_REUSEADDR, unless both ends are the same. Of one that has ended the
    host remembers them for a while; that gives way to one that has begun since, as that of the process has.
    """
    if ours.local_port != theirs.local_port or not ours.local_port:
        return False
    if is_connection(theirs):
        return is_connection(ours) and _ends(ours) == _ends(theirs) and not has_ended(theirs)
    return _overlap(ours, theirs) and _devices_meet(ours, theirs)


class Claims:
    """What a process needs of a host's ports; answers as :func:`clash` does, for thousands of sockets."""

    def __init__(self, ours: Iterable[TcpSocket]) -> None:
        self._connections: set[tuple[int, bytes, bytes, int]] = set()
        #: One socket stands for all that claim the same address, port and device.
        self._bound: dict[int, dict[tuple[bytes, str, bool], TcpSocket]] = {}
        for one in ours:
            if not one.local_port:
                continue
            if is_connection(one):
                self._connections.add((one.local_port, *_ends(one)))
            claim = (one.local_ip, one.device, one.ipv6_only)
            self._bound.setdefault(one.local_port, {}).setdefault(claim, one)

    def __bool__(self) -> bool:
        return bool(self._bound)

    def clash(self, theirs: TcpSocket) -> bool:
        """Whether one of ours cannot be restored on a host that has *theirs*."""
        if is_connection(theirs):
            return (theirs.local_port, *_ends(theirs)) in self._connections and not has_ended(theirs)
        return any(clash(ours, theirs) for ours in self._bound.get(theirs.local_port, {}).values())


def accepts(listening: TcpSocket, connection: TcpSocket) -> bool:
    """Whether *connection* may have come to *listening*."""
    same_port = listening.state == LISTEN and listening.local_port == connection.local_port
    return same_port and _overlap(listening, connection)


def _ends(one: TcpSocket) -> tuple[bytes, bytes, int]:
    return one.local_ip, one.peer_ip, one.peer_port


def _devices_meet(ours: TcpSocket, theirs: TcpSocket) -> bool:
    return not ours.device or not theirs.device or ours.device == theirs.device


def _overlap(ours: TcpSocket, theirs: TcpSocket) -> bool:
    return ours.local_ip == theirs.local_ip or _covers(ours, theirs) or _covers(theirs, ours)


def _covers(wide: TcpSocket, narrow: TcpSocket) -> bool:
    """Whether the wildcard address of *wide* includes the address of *narrow*."""
    if wide.local_ip == _WILDCARD_4:
        return len(narrow.local_ip) == 4 or (narrow.local_ip == _WILDCARD_6 and not narrow.ipv6_only)
    if wide.local_ip == _WILDCARD_6:
        return len(narrow.local_ip) == 16 or not wide.ipv6_only
    return False
