"""What waits in a unix socket, and would not come out of it after the move as it would here.

CRIU reads a queue with a peek offset and takes an empty message for its end; it fills the new queue from a socket
of its own, which has no name, and as ordinary bytes. Its look at the queue takes away an error that the program has
not been told.

Source: criu/sk-queue.c dump_sk_queue(), restore_sk_queue(); net/unix/af_unix.c unix_poll(), manage_oob().
"""

from __future__ import annotations

import contextlib
import select
import socket
from typing import NamedTuple

from migrate.inventory import momentary, proc
from migrate.processes.unix_diag import UnixSocket

#: include/uapi/asm-generic/socket.h: where the next peek begins, -1 for always at the beginning.
SO_PEEK_OFF = 42
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_TRUNC


class _Message(NamedTuple):
    """A message that waits.

    :ivar begins: behind so many bytes.
    :ivar sender: the name of the socket that has sent it, if it has one.
    """

    begins: int
    length: int
    sender: str | bytes | None


def may_lose(row: UnixSocket) -> bool:
    """Whether :func:`lost` has to be asked: what waits may count no bytes, but not in a stream."""
    return not row.listening and bool(row.unread or row.kind != socket.SOCK_STREAM or not row.peer)


def lost(sock: socket.socket, row: UnixSocket, *, still: bool) -> tuple[str, str]:
    """The code of an obstacle, and what it is of; "" for none. Nothing is taken.

    :param row: what the kernel's table says of it.
    :param still: whoever could read it is frozen, so all that waits can be looked at. Else it is the first message:
        to look at the others changes where a program's own peeks begin.
    """
    events = _events(sock)
    if events & select.POLLERR:
        return "unix-error", row.name
    if events & select.POLLPRI:
        return "unix-urgent", row.name
    if row.kind == socket.SOCK_STREAM or not events & select.POLLIN:
        return "", ""
    ended = bool(events & select.POLLRDHUP) and row.kind == socket.SOCK_SEQPACKET
    messages = _all(sock) if still else _first(sock)
    return next((found for one in messages if (found := _lost(sock, row, one, ended))[0]), ("", ""))


def _lost(sock: socket.socket, row: UnixSocket, one: _Message, ended: bool) -> tuple[str, str]:
    """At the end of what a peer has sent that sends no more, the kernel shows an empty message as well."""
    if not one.length and not (ended and one.begins >= momentary.unread_bytes(sock.fileno())):
        return "unix-empty", row.name
    if one.sender and row.kind == socket.SOCK_DGRAM:
        return "unix-sender", _text(one.sender)
    return "", ""


def _events(sock: socket.socket) -> int:
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLPRI | select.POLLRDHUP)
    return next((events for _, events in poll.poll(0)), 0)


def _first(sock: socket.socket) -> list[_Message]:
    """The first message, unless a peek would move where the program's own next one begins."""
    found = _peek(sock, 0) if sock.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF) < 0 else None
    return [] if found is None else [found]


def _all(sock: socket.socket) -> list[_Message]:
    """The messages in their order, no more of them after an empty one.

    The kernel shows an empty one behind others once, and then leaves it out (net/core/datagram.c, ``peeked``), so
    the first is asked for without an offset.
    """
    before, begins, offset = sock.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF), 0, -1
    found: list[_Message] = []
    try:
        while not found or found[-1].length:
            sock.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, offset)
            if (one := _peek(sock, begins)) is None:
                break
            found.append(one)
            begins = offset = begins + one.length
    finally:
        sock.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, before)
    return found


def _peek(sock: socket.socket, begins: int) -> _Message | None:
    """The message at the peek offset; None: there is none."""
    with contextlib.suppress(OSError):
        length, _, _, sender = sock.recvmsg_into([bytearray(1)], 0, _PEEK)
        return _Message(begins, length, sender)
    return None


def _text(name: str | bytes) -> str:
    """As ss(8) shows it, abstract names with ``@`` in front."""
    text = name if isinstance(name, str) else name.decode(errors="replace")
    return text.replace("\0", "@")


def in_flight(pid: int, fd: int) -> str:
    """How many descriptors somebody has sent to this socket (SCM_RIGHTS) and nobody has taken yet; "": none.

    Source: net/unix/af_unix.c unix_show_fdinfo(); of a listener also those of connections not yet accepted.
    """
    with contextlib.suppress(proc.Gone):
        waiting = proc.fdinfo(pid, fd).more.get("scm_fds", "0")
        return "" if waiting == "0" else waiting
    return ""
