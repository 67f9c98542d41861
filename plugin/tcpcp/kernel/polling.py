"""poll(2) and accept(2) without waiting, and not Python's own.

eventlet takes select.poll() away, and gevent's lets others run. What accept() does depends on a timeout that all
threads have in common which use the object.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Sequence

from tcpcp.errors import KernelError
from tcpcp.kernel import file_lock, tcp_repair

_libc = ctypes.CDLL(None, use_errno=True)
_libc.poll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int]
_libc.accept4.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
#: struct pollfd.
_POLLFD = struct.Struct("=ihh")
#: Whoever accepts; a record lock tells processes apart, not threads. A handler may come in between, and drain too.
_lock = threading.RLock()


def events(socks: Sequence[socket.socket], wanted: int) -> dict[int, int]:
    """What has happened by descriptor, where anything has: of what is *wanted* (select.POLLIN and so on), and
    POLLERR, POLLHUP and POLLNVAL unasked.

    :raises KernelError: of poll(): ENOMEM.
    """
    asked = b"".join(_POLLFD.pack(sock.fileno(), wanted, 0) for sock in socks)
    buffer = ctypes.create_string_buffer(asked, len(asked))
    while _libc.poll(buffer, len(socks), 0) < 0:
        if ctypes.get_errno() != errno.EINTR:  # a signal comes, and nothing else has happened
            raise KernelError("poll", ctypes.get_errno())
    return {number: found for number, _, found in _POLLFD.iter_unpack(buffer.raw) if found}


def accept(listener: socket.socket) -> socket.socket | None:
    """A connection that waits at *listener*, non-blocking; None: none waits.

    No flag of the call says that it is not to wait, and another may have been quicker since poll(). So where the
    descriptor blocks it does not for the moment of the call, of whoever shares it. No other thread, nor process,
    is in this for the same listener: it would let this call block, and this one that.

    :raises KernelError: of accept(). Source: net/socket.c do_accept(), which has f_flags of the open file.
    """
    if not events([listener], select.POLLIN):
        return None
    number = listener.fileno()
    with _lock, file_lock.waited_for(listener), _not_blocking(number):
        made = _libc.accept4(number, None, None, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        error = ctypes.get_errno()
    if made >= 0:
        sock = socket.socket(fileno=made)
        sock.setblocking(False)
        return sock
    if error != errno.EAGAIN:
        raise KernelError("accept", error, tcp_repair.describe(listener))
    return None


@contextlib.contextmanager
def _not_blocking(descriptor: int) -> Iterator[None]:
    blocks = os.get_blocking(descriptor)
    if blocks:
        os.set_blocking(descriptor, False)
    try:
        yield
    finally:
        if blocks:
            os.set_blocking(descriptor, True)


def _in_child() -> None:
    """Another thread of the parent may have held it."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_in_child)
