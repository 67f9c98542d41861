"""Memory that /proc shows as a file, and is none; and what of it CRIU does not carry.

Shared memory of System V it carries where the tree has an IPC namespace of its own: see own_ipc. Huge pages not
always: where private ones were sent ahead its restore does not end, to dump shared ones takes as many again, and
the destination may have none."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

from migrate.inventory import paths

#: How its name begins -> the obstacle.
_KINDS = {"/SYSV": "sysv-shm", "/secretmem (deleted)": "secret-memory"}
_MEMORY = ("/memfd:", "/dev/zero (deleted)", "/anon_hugepage", "/[aio]", *_KINDS)
#: Mappings of no file: the heap, a stack, the vDSO, memory with a name.
_KERNELS_OWN = "["
#: include/uapi/linux/magic.h; statfs(2) has it first, a long.
_HUGETLBFS_MAGIC = 0x958458F6
#: ipc/mqueue.c
_MQUEUE_MAGIC = 0x19800202
_TYPE, _STATFS_BYTES = struct.Struct("@L"), 256

_libc = ctypes.CDLL(None)


def is_memory(path: str, through: str) -> bool:
    """Whether a mapping or a descriptor that shows *path* is no file: one may have such a name, too.

    :param through: as of :func:`obstacle`.
    """
    if not path.startswith(_MEMORY):
        return False
    with contextlib.suppress(OSError):
        return not paths.leads_to(path, os.stat(through))  # noqa: PTH116
    return True


def obstacle(path: str, through: str) -> str:
    """What is in its way, or "".

    :param through: a link of /proc that leads to it, for what the name does not say.
    """
    if path.startswith("/") and _magic(through) == _HUGETLBFS_MAGIC:
        return "huge-pages"
    code = next((code for start, code in _KINDS.items() if path.startswith(start)), "")
    return code if is_memory(path, through) else ""


def foreign(through: str, flags: int) -> str:
    """The obstacle that a descriptor is on no mount of the process; *through* as of :func:`obstacle`."""
    if flags & os.O_PATH:
        return "foreign-place"
    return "message-queue" if _magic(through) == _MQUEUE_MAGIC else "foreign-mount"


def mapped(path: str) -> tuple[str, str]:
    """The obstacle that is a mapping of no file, and what it is of; or "", of a file or the kernel's own."""
    if paths.is_too_long(path):
        # The kernel shows it here as a whole, and tells no link to it.
        return "path-length", "a mapping"
    if path.startswith(("/", _KERNELS_OWN)):
        return "", path
    return ("mapped-socket" if path.startswith("socket:") else "anonymous"), path


def _magic(through: str) -> int:
    """The kind of file system, also of a file that is mounted where it has a name; 0, if it is gone meanwhile."""
    content = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.statfs(os.fsencode(through), content):
        return 0
    return int(_TYPE.unpack_from(content)[0])
