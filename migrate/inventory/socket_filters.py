"""Filters of sockets that no call reads: programs of eBPF (SO_ATTACH_BPF), which CRIU asks for and gets EACCES.

Source: man socket(7), SO_ATTACH_BPF, SO_GET_FILTER; net/core/filter.c sk_get_filter(): asked with a length of 0 it
copies nothing, and of eBPF there is no text to give. CRIU: criu/sockets.c dump_socket_filter().
"""

from __future__ import annotations

import ctypes
import errno
import socket

#: include/uapi/asm-generic/socket.h
_SO_GET_FILTER = 26

_libc = ctypes.CDLL(None, use_errno=True)


def is_unreadable(sock: socket.socket) -> bool:
    """Whether it has a filter that cannot be read. Nothing of the socket changes.

    socket.getsockopt() will not do: the kernel counts that length in instructions, not in bytes.
    """
    length = ctypes.c_uint(0)
    result = _libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, _SO_GET_FILTER, None, ctypes.byref(length))
    return result < 0 and ctypes.get_errno() == errno.EACCES
