"""Sockets that a user without privileges has handed in, and goes on holding: what he may do to them meanwhile.

Repair mode is meant for sockets of privileged programs, and gives whoever else holds the socket more than he
had. The kernel asks for CAP_NET_ADMIN only to enter and to leave it. In it the socket is marked
SK_FORCE_REUSE: disconnected and bound anew it gets every port from the first unprivileged one on, also one
where another user listens, and with listen() that user's clients (seen on 6.18). So right after repair mode
is entered :func:`calm` takes the mark away, which needs two calls on a socket that has had it for a moment,
and then looks whether somebody has used that moment; if so the socket is disconnected.

Source: net/ipv4/tcp.c do_tcp_setsockopt() TCP_REPAIR, tcp_disconnect();
net/ipv4/inet_connection_sock.c inet_csk_get_port().
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct

from tcpcp.endpoint import socket_ends
from tcpcp.errors import KernelError, TcpcpError, Unsupported
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Endpoint, State

Ends = tuple[Endpoint, Endpoint]
_AF_UNSPEC = struct.pack("=H14x", socket.AF_UNSPEC)
_libc = ctypes.CDLL(None, use_errno=True)


def adopt(descriptor: int) -> socket.socket:
    """The TCP socket *descriptor*, which the object owns from here on. Its blocking mode is not touched.

    :raises Unsupported: it is something else; the descriptor is still the caller's.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        if error.errno != errno.ENOTSOCK:
            raise KernelError("getsockopt(SO_DOMAIN)", error.errno or errno.EIO) from error
        raise Unsupported("not a socket: only TCP connections can be passed") from None
    if sock.type is socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6):
        return sock
    kind = f"{sock.family.name}, {sock.type.name}"
    sock.detach()
    raise Unsupported(f"not a TCP socket: {kind}")


def cookie(sock: socket.socket) -> int:
    """The kernel's name for the socket, never used again, the same for every descriptor of it."""
    return tcp_repair.get_cookie(sock)


def in_repair(sock: socket.socket) -> bool:
    """Whether *sock* is in repair mode; everybody may ask."""
    with contextlib.suppress(KernelError):
        return bool(tcp_repair.get_int(sock, tcp_repair.TCP, tcp_repair.TCP_REPAIR, "TCP_REPAIR"))
    return False


def calm(sock: socket.socket, reuse: int) -> None:
    """Take from *sock*, in repair mode, what its owner must not have; :func:`check_ends` looks what he did.

    :param reuse: SO_REUSEADDR as the connection has it.
    """
    tcp_repair.set_int(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse, "SO_REUSEADDR")


def check_fresh(sock: socket.socket) -> None:
    """Make sure that *sock* is as socket(2) makes it, as far as that matters.

    :raises Unsupported: it is bound, or was connected.
    """
    if tcp_repair.get_state(sock) != State.CLOSE or socket_ends.local_end(sock).port:
        raise Unsupported(f"{tcp_repair.describe(sock)}: not a fresh socket")


def check_ends(sock: socket.socket, ends: Ends) -> None:
    """Make sure that *sock* is the connection it was.

    :raises Unsupported: it is another; it is as after :func:`put_down`.
    """
    try:
        local, peer, _ = socket_ends.ends(sock)
        if (local, peer) == ends:
            return
        found = f"{local} - {peer}"
    except KernelError:
        found = "no connection"
    put_down(sock)
    raise Unsupported(f"{ends[0]} - {ends[1]}: was changed meanwhile, is {found} now; it was disconnected")


def put_down(sock: socket.socket) -> None:
    """Disconnect *sock*, whatever it is, without a packet where it is in repair mode; then leave that."""
    _libc.connect(sock.fileno(), _AF_UNSPEC, len(_AF_UNSPEC))
    if in_repair(sock):
        with contextlib.suppress(TcpcpError):
            tcp_repair.set_repair(sock, tcp_repair.OFF_NO_PROBE)
