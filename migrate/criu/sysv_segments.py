"""Shared memory of System V in CRIU's images: what CRIU does not set again of it.

A segment that has been removed while it was attached is gone with the last who has it (SHM_DEST), and one may be
locked (SHM_LOCKED). Both are bits of its mode, which mean something else where CRIU makes it: IPC_CREAT, IPC_EXCL.

Source: criu/ipc_ns.c prepare_ipc_shm_seg(); include/uapi/linux/shm.h, ipc.h; man shmctl(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from migrate.criu import records
from migrate.errors import KernelError
from migrate.processes import ipc_namespace

_REMOVED, _LOCKED = 0o1000, 0o2000
_IPC_RMID, _SHM_LOCK = 0, 11
_libc = ctypes.CDLL(None, use_errno=True)


def put_back(root_pid: int, images: Path) -> list[str]:
    """Set it, of a tree that was built with the root *root_pid* and has not run.

    :return: sentences: what is different now.
    :raises ProtocolError: an image is not CRIU's.
    :raises KernelError: they are not there.
    """
    marked = list(_marked(images))
    if not marked:
        return []
    try:
        return ipc_namespace.within(root_pid, lambda: [text for one in marked for text in _mark(*one)])
    except OSError as error:
        raise KernelError(f"shared memory of System V that was built: {error.strerror}") from error


def _marked(images: Path) -> Iterator[tuple[int, int]]:
    """Number and mode of each that has one of the two."""
    for path in images.glob("ipcns-shm-*.img"):
        from pycriu.images import pb

        for entry, _ in records.read(path.read_bytes(), pb.ipc_shm_entry, path.name):
            if entry.desc.mode & (_REMOVED | _LOCKED):
                yield entry.desc.id, entry.desc.mode


def _mark(number: int, mode: int) -> Iterator[str]:
    if mode & _LOCKED and _libc.shmctl(number, _SHM_LOCK, None):
        why = os.strerror(ctypes.get_errno())
        yield f"shared memory {number} (ipcs -m) is not locked in memory (SHM_LOCK) any more: {why}"
    if mode & _REMOVED and _libc.shmctl(number, _IPC_RMID, None):
        raise OSError(ctypes.get_errno(), f"segment {number} cannot be removed")
