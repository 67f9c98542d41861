"""Where a socket's ends are: as it says, as the kernel's fields say, and after its connection has ended."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from functools import lru_cache

from tcpcp.errors import Unsupported
from tcpcp.kernel import tcp_repair
from tcpcp.record import addresses
from tcpcp.record.ici import Endpoint

#: Lengths of struct sockaddr_in and sockaddr_in6, and where the address is in them.
_SOCKADDR = {socket.AF_INET: (16, slice(4, 8)), socket.AF_INET6: (28, slice(8, 24))}
#: Slots of 8 bytes, each loaded as a number of its size and stored as one of 8: so where its bytes are depends.
_ENDS = struct.Struct(
    "=Q2sxxxxxx2sxxxxxx4sxxxx4sxxxx16s16s" if sys.byteorder == "little" else "=Q6x2s6x2s4x4s4x4s16s16s"
)


def ends(sock: socket.socket) -> tuple[Endpoint, Endpoint, bool]:
    """Both ends of *sock*, and whether its connection is closed.

    :raises KernelError: ENOTCONN, it never had one.
    """
    local = local_end(sock)
    try:
        return local, _endpoint(sock.getpeername()), False
    except OSError:
        return local, last_peer(sock), True


@lru_cache(65536)
def ends_in(raw: bytes) -> tuple[Endpoint, Endpoint] | None:
    """Both ends, from :attr:`tcpcp.kernel.fields.Seen.ends`; None where the socket has no address of its own."""
    family, local_port, peer_port, local4, peer4, local6, peer6 = _ENDS.unpack(raw)
    mine, theirs = (local4, peer4) if family == socket.AF_INET else (local6, peer6)
    if not any(mine):
        return None
    return _end_in(mine, local_port), _end_in(theirs, peer_port)


def _end_in(ip: bytes, port: bytes) -> Endpoint:
    return Endpoint(addresses.address(ip), int.from_bytes(port, "big"))


def local_end(sock: socket.socket) -> Endpoint:
    """Where *sock* is bound."""
    try:
        return _endpoint(sock.getsockname())
    except OSError as exc:
        raise tcp_repair.failed("getsockname", sock, exc) from exc


def peer_end(sock: socket.socket) -> Endpoint:
    """What *sock* is connected to. :raises KernelError: it is not."""
    try:
        return _endpoint(sock.getpeername())
    except OSError as exc:
        raise tcp_repair.failed("getpeername", sock, exc) from exc


def last_peer(sock: socket.socket) -> Endpoint:
    """The far end of *sock*, also after the connection has been closed, when getpeername() is refused.

    :raises KernelError: ENOTCONN, it never had one.
    Source: net/ipv4/af_inet.c inet_getname(), net/core/sock.c sk_getsockopt() SO_PEERNAME.
    """
    length, where = _SOCKADDR[sock.family]
    raw = tcp_repair.get_bytes(sock, socket.SOL_SOCKET, tcp_repair.SO_PEERNAME, length, "SO_PEERNAME")
    return _endpoint((socket.inet_ntop(sock.family, raw[where]), int.from_bytes(raw[2:4], "big")))


def device(sock: socket.socket) -> str:
    """The interface that *sock* is bound to, or "".

    :raises Unsupported: its name, which to the kernel is any bytes, is no text.
    """
    raw = tcp_repair.get_bytes(sock, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16, "SO_BINDTODEVICE")
    name = raw.split(b"\0", 1)[0]
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Unsupported(
            f"{tcp_repair.describe(sock)}: bound to the interface {name!r}, whose name is not UTF-8; give it "
            "another one (ip link set)"
        ) from None


@lru_cache(65536)
def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address written as *text* by the kernel; an IPv4-mapped one as IPv4."""
    if ":" not in text:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    ip = ipaddress.IPv6Address(text.split("%", 1)[0])
    return ip.ipv4_mapped or ip


@lru_cache(65536)
def _endpoint_of(host: str, port: int) -> Endpoint:
    return Endpoint(address(host), port)


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    return _endpoint_of(name[0], name[1])
