"""What is done with a file or memory by those who hold it: it is read, written, mapped, or nobody can write it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable

from migrate.inventory import outside, proc
from migrate.inventory.holders import Held

#: Of mmap(2) with MAP_SHARED and MAP_ANONYMOUS.
_SHARED = "shared memory"


def of(several: Iterable[Held]) -> tuple[bool, bool]:
    """Whether one of them reads, and whether one writes."""
    reads = writes = False
    for one in several:
        with contextlib.suppress(proc.Gone):
            if one.fd < 0:
                reads, writes = True, writes or "w" in one.target
            else:
                info = proc.fdinfo(one.pid, one.fd)
                reads, writes = reads or info.reads, writes or info.writes
    return reads, writes


def are_of_memory(path: str, several: Iterable[Held], *, deleted: bool) -> bool:
    """Whether it is memory, or a file without a name that somebody has mapped."""
    if path == _SHARED or path.startswith(outside.NAMELESS):
        return True
    return deleted and any(one.fd < 0 for one in several)


def is_sealed(one: Held) -> bool:
    """Whether nobody can write to this memory any more (memfd_create(2), F_SEAL_WRITE)."""
    try:
        lent = os.open(outside.place(one), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return bool(fcntl.fcntl(lent, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return False
    finally:
        os.close(lent)


def path(one: Held) -> str:
    """Its path, as /proc shows it, of a mapping too; of memory that has only the kernel's, what it is."""
    with contextlib.suppress(OSError):
        found = os.readlink(outside.place(one))  # noqa: PTH115
        return _SHARED if found == "/dev/zero (deleted)" else found
    return one.target


def mode(one: Held) -> int:
    """What kind of file it is, and its mode; 0 if it was closed since."""
    with contextlib.suppress(OSError):
        return os.stat(outside.place(one)).st_mode  # noqa: PTH116
    return 0
