"""Which sockets CRIU dumps, and in which network namespace one is."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from migrate.pb.session_pb2 import Obstacle
from tcpcp.errors import KernelError

_SO_NETNS_COOKIE = 71
_IPPROTO_UDPLITE = 136
_IPPROTO_MPTCP = 262

#: Families whose sockets CRIU dumps (criu/sockets.c dump_socket()) and that mean the same on another host.
_FAMILIES = frozenset({socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK})
#: criu/sk-inet.c can_dump_ipproto(); a raw socket may have any.
_PROTOCOLS = frozenset(
    {0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, _IPPROTO_UDPLITE, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6}
)
_PROTOCOL_NAMES = {132: "SCTP", 33: "DCCP", 115: "L2TP", 256: "SMC"}


def unsupported(sock: socket.socket) -> str:
    """Return the name of the protocol that CRIU cannot dump, or "" when it can."""
    if sock.family not in _FAMILIES:
        return f"{_name(sock.family)} (address family {int(sock.family)})"
    if sock.family in (socket.AF_UNIX, socket.AF_NETLINK) or sock.type == socket.SOCK_RAW:
        return ""
    if sock.proto == _IPPROTO_MPTCP:
        return "MPTCP"
    if sock.proto not in _PROTOCOLS:
        return _PROTOCOL_NAMES.get(sock.proto, f"IP protocol {sock.proto}")
    return ""


@contextlib.contextmanager
def nameless(obstacles: list[Obstacle], pid: int, fd: int) -> Iterator[None]:
    """Add a socket without getsockname(2), of which Python cannot say what it is, when it is borrowed."""
    try:
        yield
    except KernelError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        obstacles.append(Obstacle(code="socket-kind", pid=pid, fd=fd, what="one without an address (AF_XDP)"))


def _name(family: int) -> str:
    return family.name if isinstance(family, socket.AddressFamily) else "a kind unknown here"


def is_tcp(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and sock.proto == socket.IPPROTO_TCP


def forgetful(sock: socket.socket) -> str:
    """What kind of socket without a port it is whose queue CRIU drops; "" for any other.

    Source: criu/sk-inet.c can_dump_inet_sk().
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    if sock.type == socket.SOCK_RAW:
        return "a raw socket"
    return "a socket for ping" if sock.proto in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6) else ""


def netns_cookie(sock: socket.socket | None = None) -> bytes:
    """Return what names the network namespace of *sock*, or our own; b"" where the kernel cannot say.

    Source: kernel commit e8b9eab99232 (5.14).
    """
    if sock is None:
        with socket.socket(socket.AF_UNIX) as own:
            return netns_cookie(own)
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError:
        return b""


def has_peer(sock: socket.socket) -> bool:
    """Whether it is connected."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def has_name(sock: socket.socket) -> bool:
    """Whether others can send to an IP or unix socket: it has a port, or a name."""
    name = sock.getsockname()
    return bool(name if sock.family == socket.AF_UNIX else name[1])
