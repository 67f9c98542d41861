"""Whether two hosts see one and the same file: the name of its place that both would give it.

Numbers of devices mean nothing on another host. What two clients of one file server have in common is the file
system's type and source, its id, the inode's number and the handle by which the server knows the file, with the
inode's generation in it: all must be equal. On one kernel (two containers) device and inode do.

Of file systems that a virtual machine has from its host (9p, virtiofs) the source is a word that any two hosts
may use for different things, so they are not known; their files are compared by content.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import struct
from pathlib import Path

from migrate.processes import mounts

#: Types of mountinfo whose source names a server, or a cluster, that other hosts mean as well.
_SHARED = re.compile(
    r"nfs4?|cifs|smb3|ceph|lustre|gpfs|beegfs|afs|fuse\.(glusterfs|ceph\S*|juicefs|cephfs|mfs)"
)
_HANDLE = struct.Struct("=Ii")
_MOST_HANDLE_BYTES = 128
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_LIBC = ctypes.CDLL(None, use_errno=True)


def name(path: str) -> str:
    """Return what another host that sees the same file at *path* would return; "" when nothing is sure.

    :param path: may be one of /proc, as ``/proc/PID/fd/3``.
    :raises OSError: there is no such file.
    """
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status, mount = os.fstat(file), _mount(file)
        if _SHARED.fullmatch(mount[0]):
            space = os.fstatvfs(file)
            handle = _handle(file)
            return f"{mount[0]} {mount[1]} {space.f_fsid:x} {status.st_ino} {handle}" if handle else ""
        return f"kernel {_boot_id()} {status.st_dev} {status.st_ino}"
    finally:
        os.close(file)


def _mount(file: int) -> tuple[str, str]:
    """Type and source of the file system that the descriptor *file* is on."""
    match = re.search(r"^mnt_id:\s*(\d+)", Path(f"/proc/self/fdinfo/{file}").read_text(), re.MULTILINE)
    return _mount_of(int(match.group(1))) if match else ("", "")


@functools.lru_cache(maxsize=256)
def _mount_of(number: int) -> tuple[str, str]:
    return next(((one.kind, one.source) for one in mounts.here() if one.number == number), ("", ""))


def _handle(file: int) -> str:
    """What the file's server calls it; "" for a file system that cannot say. Source: man open_by_handle_at(2)."""
    buffer = ctypes.create_string_buffer(
        _HANDLE.pack(_MOST_HANDLE_BYTES, 0), _HANDLE.size + _MOST_HANDLE_BYTES
    )
    mount = ctypes.c_int()
    if _LIBC.name_to_handle_at(file, b"", buffer, ctypes.byref(mount), _AT_EMPTY_PATH):
        return ""
    size, kind = _HANDLE.unpack_from(buffer)
    return f"{kind}:{buffer.raw[_HANDLE.size : _HANDLE.size + size].hex()}"


@functools.lru_cache(maxsize=1)
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
