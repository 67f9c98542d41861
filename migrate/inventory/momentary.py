"""What CRIU refuses of a socket because of what it is doing in this moment: asked through a borrowed descriptor."""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import termios

_UDP_CORK = 1
_IPPROTO_UDPLITE = 136
#: SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD, SO_TIMESTAMP, SO_TIMESTAMPNS (include/uapi/asm-generic/socket.h).
_WITH_MESSAGES = (16, 34, 76, 29, 35)


def of_other(sock: socket.socket) -> str:
    """The code of an obstacle of a socket that is neither TCP nor unix; "": there is none. Nothing is taken."""
    if sock.family == socket.AF_NETLINK:
        return "netlink-unread" if _unread(sock) else ""
    if sock.proto in (0, socket.IPPROTO_UDP, _IPPROTO_UDPLITE) and sock.type == socket.SOCK_DGRAM:
        return "udp-corked" if sock.getsockopt(socket.IPPROTO_UDP, _UDP_CORK) else ""
    return ""


def of_unix(sock: socket.socket) -> str:
    """The same of a unix socket in which something waits: CRIU cannot dump what comes with control messages.

    Source: criu/sk-queue.c dump_sk_queue_packet(); man unix(7), SO_PASSCRED.
    """
    for option in _WITH_MESSAGES:
        with contextlib.suppress(OSError):
            if sock.getsockopt(socket.SOL_SOCKET, option):
                return "unix-credentials"
    return ""


def unread_bytes(descriptor: int) -> int:
    """What waits to be read from inotify, fanotify, or a terminal. Source: inotify(7), ioctl_tty(2), FIONREAD."""
    found = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, found)
    return found[0]


def is_ping(sock: socket.socket) -> bool:
    """Whether it is an ICMP socket for everybody's use. Source: man icmp(7), ping_group_range."""
    return sock.type == socket.SOCK_DGRAM and sock.proto in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)


def _unread(sock: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return True
    return False
