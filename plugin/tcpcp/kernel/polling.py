"""poll(2) without waiting. Not select.poll(), which eventlet takes away, and under gevent lets others run."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Sequence

from tcpcp.errors import KernelError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.poll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int]
#: struct pollfd.
_POLLFD = struct.Struct("=ihh")


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
