"""What a TCP socket has for its program, and the program has not taken yet, that a move would lose.

A reset, a timeout or a refused connect() is told once, by an error; a restored socket has none, and a connection
that was cut off would look like one that has ended in order. What a closed connection has still to be read, and
what waits in the error queue, CRIU does not take along. The numbers of MSG_ZEROCOPY begin at 0 again in a new
socket, so that a program which counts them would wait for ever, or give back the wrong buffer.

Source: net/ipv4/tcp.c tcp_poll(), tcp_reset() in tcp_input.c; net/core/skbuff.c msg_zerocopy_alloc(),
Documentation/networking/msg_zerocopy.rst.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping

from migrate.errors import MigrateError
from tcpcp.endpoint import inspection
from tcpcp.errors import KernelError
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State

_SO_ZEROCOPY = 60
#: struct tcp_info: tcpi_bytes_sent, since Linux 4.19.
_BYTES_SENT = struct.Struct("=200xQ")


def problem(sock: socket.socket) -> str:
    """What would be lost of *sock*, a TCP socket that does not listen; "" for nothing.

    Nothing changes: the error stays where it is.

    :raises KernelError: it is closed, or no TCP socket.
    """
    closed = tcp_repair.get_state(sock) == State.CLOSE
    if inspection.with_error([sock]):
        if closed:
            return "an error that the program has not been told: it was reset, refused or timed out"
        return "messages in its error queue that the program has not read (MSG_ERRQUEUE)"
    if closed and (count := _unread(sock)):
        return f"{count} bytes of an ended connection that the program has not read"
    return "" if closed else _zerocopy(sock)


def require_none(connections: Mapping[int, socket.socket], zerocopy: Iterable[int]) -> None:
    """Make sure that nothing would be lost of *connections* of a frozen tree, by inode.

    :param zerocopy: those that have SO_ZEROCOPY set.
    :raises MigrateError: something would.
    """
    suspects = [*inspection.with_error(connections.values()), *(connections[inode] for inode in zerocopy)]
    for sock in suspects:
        if found := problem(sock):
            text = f"{tcp_repair.describe(sock)} has {found}; it had not when it was checked"
            raise MigrateError(text, hint="It goes on here, and is told. Try again then.")


def _unread(sock: socket.socket) -> int:
    try:
        return tcp_repair.get_inq(sock)
    except KernelError:
        return 0  # never connected


def _zerocopy(sock: socket.socket) -> str:
    """It may have been used once it has sent anything."""
    if not tcp_repair.get_int(sock, socket.SOL_SOCKET, _SO_ZEROCOPY, "SO_ZEROCOPY"):
        return ""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_SENT.size)
    known = len(info) == _BYTES_SENT.size
    if known and not _BYTES_SENT.unpack(info)[0]:
        return ""
    return "notifications of MSG_ZEROCOPY to come, whose numbers would begin at 0 again"
