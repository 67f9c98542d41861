"""Another thread of the program does something to a socket between two calls of the library, the n-th and the next.

Python's socket class is replaced method by method, as in `failing_calls`, with ioctl. Not between calls for which
the library keeps the interpreter's lock: there no thread of a Python program runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from failing_calls import _METHODS

_libc = ctypes.CDLL(None, use_errno=True)
_libc.send.restype = _libc.recv.restype = ctypes.c_ssize_t


def written(sock: socket.socket, data: bytes) -> int:
    """How much of *data* a thread could write to *sock*."""
    count = _libc.send(sock.fileno(), data, ctypes.c_size_t(len(data)), socket.MSG_DONTWAIT)
    return _counted(count)


def taken(sock: socket.socket, size_bytes: int, flags: int = 0) -> bytes:
    """What a thread could read of *sock*."""
    buffer = ctypes.create_string_buffer(size_bytes)
    count = _libc.recv(sock.fileno(), buffer, ctypes.c_size_t(size_bytes), flags | socket.MSG_DONTWAIT)
    return buffer.raw[: _counted(count)]


#: In repair mode; nothing there, or no room; the connection has ended; the descriptor is closed.
_REFUSED = (
    *(errno.EINVAL, errno.EPERM, errno.EAGAIN),
    *(errno.ECONNABORTED, errno.ENOTCONN, errno.EPIPE, errno.EBADF),
)


def _counted(count: int) -> int:
    """Nothing where the call is refused."""
    if count < 0:
        assert ctypes.get_errno() in _REFUSED, os.strerror(ctypes.get_errno())
    return max(count, 0)


class Meddling:
    """:ivar done: whether there was a call of that number."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self._left, self._act = number, act
        self.done = False

    def wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def one(*arguments: Any, **named: Any) -> Any:
            try:
                return call(*arguments, **named)
            finally:
                self._left -= 1
                if self._left == 0:
                    self.done = True
                    self._act()

        return one


@contextlib.contextmanager
def after_call(number: int, act: Callable[[], object]) -> Iterator[Meddling]:
    """While the block runs; *number* counts from 1."""
    meddling = Meddling(number, act)
    with pytest.MonkeyPatch.context() as patch:
        for name in _METHODS:
            patch.setattr(socket.socket, name, meddling.wrapped(getattr(socket.socket, name)), raising=False)
        patch.setattr(fcntl, "ioctl", meddling.wrapped(fcntl.ioctl))
        yield meddling
