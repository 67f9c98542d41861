"""A socket that no other process is at meanwhile: a record lock on it, which is the process's own.

A child after fork() shares the open file with its parent, O_NONBLOCK and repair mode too, but not such a lock. It
ends with the process, and when any thread of the process closes a descriptor of the same socket: that is too early,
so it is for moments.

Source: fcntl_locking(2), "Advisory record locking"; fs/locks.c posix_lock_inode(), locks_remove_posix().
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import time
from collections.abc import Iterator

from tcpcp.errors import KernelError
from tcpcp.kernel import tcp_repair

#: What another process does with its lock takes microseconds.
WAITED_S = 2.0
_LOOK_S = 0.0002
_TAKEN = (errno.EAGAIN, errno.EACCES)


def take(sock: socket.socket) -> bool:
    """Lock *sock*; whether no other process has. Where it cannot be locked at all nobody has."""
    try:
        fcntl.lockf(sock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        return exc.errno not in _TAKEN
    return True


def give_back(sock: socket.socket) -> None:
    """Unlock *sock*, where it is open still."""
    with contextlib.suppress(OSError, ValueError):
        fcntl.lockf(sock, fcntl.LOCK_UN)


@contextlib.contextmanager
def waited_for(sock: socket.socket) -> Iterator[None]:
    """A ``with`` block in which no other process is in one for *sock*: waits for it.

    :raises KernelError: EAGAIN: the other's does not end, as that of a process that was stopped in it.
    """
    deadline = time.monotonic() + WAITED_S
    while not take(sock):
        if time.monotonic() > deadline:
            raise KernelError("fcntl(F_SETLK)", errno.EAGAIN, tcp_repair.describe(sock))
        time.sleep(_LOOK_S)
    try:
        yield
    finally:
        give_back(sock)
