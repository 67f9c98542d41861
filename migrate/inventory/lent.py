"""Sockets of a process that runs on, borrowed: each is the one that was seen, or was closed since."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from tcpcp.criu.tree import HeldSocket
from tcpcp.endpoint.calls import inspect
from tcpcp.endpoint.inspection import check_listener
from tcpcp.errors import KernelError, Unsupported
from tcpcp.kernel import fields
from tcpcp.kernel.pidfd import Lender
from tcpcp.record.ici import State

#: A descriptor, or a connection in the kernel's tables, that is not there any more, or was never one.
_CLOSED = (errno.EBADF, errno.ESRCH, errno.ENOTSOCK, errno.ENOENT, errno.ESTALE, errno.ENOTCONN)


class _ClosedError(Exception):
    """Another socket has its descriptor's number."""


@contextlib.contextmanager
def borrowed(lender: Lender, held: HeldSocket) -> Iterator[socket.socket]:
    """The socket *held*, and not another one that has got its descriptor's number since.

    To be used within :func:`unless_closed`. :raises KernelError: it was closed, or cannot be borrowed.
    """
    with lender.borrow(*held.holders[0]) as one:
        if os.fstat(one.fileno()).st_ino != held.inode:
            raise _ClosedError
        yield one


@contextlib.contextmanager
def unless_closed(held: HeldSocket, closed: list[HeldSocket]) -> Iterator[None]:
    """Leave out a descriptor that was closed, or whose process has ended, since it was seen: it is *closed*."""
    try:
        yield
    except _ClosedError:
        closed.append(held)
    except KernelError as error:
        if error.errno not in _CLOSED:
            raise
        closed.append(held)


def problem(tcp: socket.socket, state: int) -> str:
    """Why a connection, or a listener, cannot be passed; "": it can."""
    fields.prepare()
    try:
        if state == State.LISTEN:
            check_listener(tcp)
        elif state != State.CLOSE:
            inspect(tcp)
    except Unsupported as error:
        return str(error)
    return ""


def is_unconnected(tcp: socket.socket) -> bool:
    """Whether a TCP socket has no connection, as before one and after its end."""
    return tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == State.CLOSE


def is_held(held: HeldSocket) -> bool:
    """Whether it is still the program that has it: what it has closed while we had borrowed it is nobody's."""
    pid, fd = held.holders[0]
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/fd/{fd}") == f"socket:[{held.inode}]"  # noqa: PTH115
    return False
