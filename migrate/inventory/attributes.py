"""Attributes of an inode that forbid even root to change it: chattr +i and +a.

Source: man statx(2), ioctl_iflags(2); include/uapi/linux/stat.h.
"""

from __future__ import annotations

import ctypes
import os
import struct

from migrate.pb.session_pb2 import File

#: STATX_ATTR_IMMUTABLE, STATX_ATTR_APPEND.
_WORDS = ((0x10, File.IMMUTABLE), (0x20, File.APPEND_ONLY))
_AT_FDCWD = -100
_STX_ATTRIBUTES = struct.Struct("=8xQ")
_STATX_BYTES = 256
_LIBC = ctypes.CDLL(None, use_errno=True)


def of(path: str) -> list[File.Attribute]:
    """Those of what is at *path*, through symbolic links; none where the file system has none, or there is nothing.

    :param path: may be one of /proc, as ``/proc/PID/fd/3``.
    """
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if "\0" in path or _LIBC.statx(_AT_FDCWD, os.fsencode(path), 0, 0, buffer):
        return []
    (found,) = _STX_ATTRIBUTES.unpack_from(buffer)
    return [word for bit, word in _WORDS if found & bit]
