"""Options of sockets that are no TCP sockets, which CRIU does not know: read at the origin, set on the destination.

They are read before CRIU's dump, which moves where peeks begin while it reads a queue. Multicast groups and filters
have files of their own, or are refused.

Source: man socket(7), udp(7), ip(7), ipv6(7), netlink(7); criu/sockets.c dump_socket_opts().
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tcpcp.criu.tree import HeldSocket
from tcpcp.errors import KernelError
from tcpcp.kernel.pidfd import Lender

_SOL_NETLINK = 270


class Option(NamedTuple):
    """Where it is, and what a new socket has; None: that depends on the host."""

    level: int
    number: int
    default: int | None = 0


_OF_ALL = {
    "SO_TIMESTAMP": Option(socket.SOL_SOCKET, 29),
    "SO_TIMESTAMPNS": Option(socket.SOL_SOCKET, 35),
}
_PEEKS = {"SO_PEEK_OFF": Option(socket.SOL_SOCKET, 42, -1)}
_OF_UDP = {"UDP_SEGMENT": Option(socket.IPPROTO_UDP, 103), "UDP_GRO": Option(socket.IPPROTO_UDP, 104)}
_OF_IPV4 = {
    "IP_MTU_DISCOVER": Option(socket.IPPROTO_IP, 10, None),
    "IP_RECVERR": Option(socket.IPPROTO_IP, 11),
    "IP_RECVTTL": Option(socket.IPPROTO_IP, 12),
    "IP_RECVTOS": Option(socket.IPPROTO_IP, 13),
    "IP_MULTICAST_TTL": Option(socket.IPPROTO_IP, 33, 1),
    "IP_MULTICAST_LOOP": Option(socket.IPPROTO_IP, 34, 1),
}
_OF_IPV6 = {
    "IPV6_MULTICAST_HOPS": Option(socket.IPPROTO_IPV6, 18, 1),
    "IPV6_MULTICAST_LOOP": Option(socket.IPPROTO_IPV6, 19, 1),
    "IPV6_MTU_DISCOVER": Option(socket.IPPROTO_IPV6, 23, None),
    "IPV6_RECVERR": Option(socket.IPPROTO_IPV6, 25),
    "IPV6_RECVHOPLIMIT": Option(socket.IPPROTO_IPV6, 51),
    "IPV6_RECVTCLASS": Option(socket.IPPROTO_IPV6, 66),
}
_OF_NETLINK = {
    "NETLINK_PKTINFO": Option(_SOL_NETLINK, 3),
    "NETLINK_BROADCAST_ERROR": Option(_SOL_NETLINK, 4),
    "NETLINK_NO_ENOBUFS": Option(_SOL_NETLINK, 5),
    "NETLINK_LISTEN_ALL_NSID": Option(_SOL_NETLINK, 8),
    "NETLINK_CAP_ACK": Option(_SOL_NETLINK, 10),
    "NETLINK_EXT_ACK": Option(_SOL_NETLINK, 11),
    "NETLINK_GET_STRICT_CHK": Option(_SOL_NETLINK, 12),
}
_BY_FAMILY = {
    socket.AF_UNIX: _OF_ALL | _PEEKS,
    socket.AF_INET: _OF_ALL | _PEEKS | _OF_IPV4 | _OF_UDP,
    socket.AF_INET6: _OF_ALL | _PEEKS | _OF_IPV6 | _OF_UDP,
    socket.AF_NETLINK: _OF_ALL | _OF_NETLINK,
}
_ALL = {name: option for table in _BY_FAMILY.values() for name, option in table.items()}


class Held(NamedTuple):
    """A socket and what it has set, by name."""

    held: HeldSocket
    options: dict[str, int]


def read(others: Iterable[HeldSocket]) -> list[Held]:
    """Those of *others*, which are no TCP sockets, that have something set. One that was closed is left out."""
    found = []
    with Lender() as lender:
        for one in others:
            with contextlib.suppress(KernelError), lender.borrow(*one.holders[0]) as borrowed:
                if options := of(borrowed):
                    found.append(Held(one, options))
    return found


def of(sock: socket.socket) -> dict[str, int]:
    """What *sock* has that a new one has not, by name; an option that the kernel has not got is left out."""
    found = {}
    if sock.type == socket.SOCK_STREAM and sock.family != socket.AF_UNIX:
        return {}
    for name, option in _BY_FAMILY.get(sock.family, {}).items():
        with contextlib.suppress(OSError):
            value = sock.getsockopt(option.level, option.number)
            if value != option.default:
                found[name] = value
    return found


def put_back(wanted: Mapping[int, Mapping[str, int]], holders: Mapping[int, tuple[int, int]]) -> list[str]:
    """Set *wanted*, by inode, on sockets of a tree that was built, and has not run.

    :param holders: inode -> (PID, descriptor) on this host.
    :return: sentences: what is different now.
    :raises KernelError, PermissionDenied: a socket cannot be had.
    """
    told = []
    with Lender() as lender:
        for inode, options in wanted.items():
            pid, fd = holders[inode]
            with lender.borrow(pid, fd) as sock:
                told += [f"descriptor {fd} of process {pid}: {one}" for one in _set(sock, options)]
    return told


def _set(sock: socket.socket, options: Mapping[str, int]) -> Iterator[str]:
    for name, value in options.items():
        option = _ALL.get(name)
        if option is None:
            yield f"the socket option {name} is not known here"
            continue
        try:
            if sock.getsockopt(option.level, option.number) != value:
                sock.setsockopt(option.level, option.number, value)
        except OSError as error:
            yield f"the socket option {name} is not {value} as before: {error.strerror}"
