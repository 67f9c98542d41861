"""Memory that is locked as it is touched (MLOCK_ONFAULT): CRIU locks all of it, which has all of it made.

Who locks all that it has (mlockall(2)) may have asked for what it will map as well (MCL_FUTURE), which shows
nowhere, and which CRIU forgets.

Source: man mlock2(2); criu/mem.c, MAP_LOCKED; Documentation/filesystems/proc.rst, VmFlags of smaps; mm/mlock.c
mlock_fixup() for mappings that are never locked.
"""

from __future__ import annotations

from collections.abc import Iterator

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle

_KILOBYTE = 1024
_ON_FAULT, _LOCKED = "lf", "lo"
#: I/O, not expanded by mremap(2), of page frames, mixed; huge pages.
_NEVER = frozenset({"io", "de", "pf", "mm", "ht"})


def obstacles(pid: int, status: dict[str, str]) -> Iterator[Obstacle]:
    """Yield notes: how much more memory *pid* will have after the move, and that all is locked, if it locks any.

    :param status: of the process; to look at all mappings takes the kernel some time for much memory.
    :raises Gone: it has ended.
    """
    if not _any(status):
        return
    smaps = proc.text(pid, "smaps")
    if (more := untouched(smaps)) is not None:
        yield Obstacle(code="locked-on-fault", pid=pid, size_bytes=more)
    if everything(smaps):
        yield Obstacle(code="locked-future", pid=pid)


def all_of(pid: int) -> bool:
    """Whether *pid* locks all of its memory. :raises Gone: it has ended."""
    return _any(proc.status(pid)) and everything(proc.text(pid, "smaps"))


def everything(smaps: str) -> bool:
    """Whether all mappings are locked that can be.

    :param smaps: the content of /proc/PID/smaps.
    """
    lines = smaps.partition("[vsyscall]")[0].split("\n")
    flags = [set(line.split()[1:]) for line in lines if line.startswith("VmFlags:")]
    return bool(flags) and all(_LOCKED in one or one & _NEVER for one in flags)


def untouched(smaps: str) -> int | None:
    """Bytes of mappings that are locked on fault and are not in memory; None: no mapping is locked so.

    :param smaps: the content of /proc/PID/smaps.
    """
    found, size, resident = None, 0, 0
    for line in smaps.split("\n"):
        name, _, rest = line.partition(":")
        if name == "Size":
            size = int(rest.split()[0]) * _KILOBYTE
        elif name == "Rss":
            resident = int(rest.split()[0]) * _KILOBYTE
        elif name == "VmFlags" and _ON_FAULT in rest.split():
            found = (found or 0) + size - resident
    return found


def _any(status: dict[str, str]) -> bool:
    return status.get("VmLck", "0 kB").split()[0] != "0"
