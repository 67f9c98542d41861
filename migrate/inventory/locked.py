"""Memory that is locked as it is touched (MLOCK_ONFAULT): CRIU locks all of it, which has all of it made.

Source: man mlock2(2); criu/mem.c, MAP_LOCKED; Documentation/filesystems/proc.rst, VmFlags of smaps.
"""

from __future__ import annotations

from collections.abc import Iterator

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle

_KILOBYTE = 1024
_ON_FAULT = "lf"


def on_fault(pid: int, status: dict[str, str]) -> Iterator[Obstacle]:
    """Yield, once, how much more memory *pid* will have after the move; nothing of a process that locks none.

    :param status: of the process; to look at all mappings takes the kernel some time for much memory.
    :raises Gone: it has ended.
    """
    if (
        status.get("VmLck", "0 kB").split()[0] != "0"
        and (more := untouched(proc.text(pid, "smaps"))) is not None
    ):
        yield Obstacle(code="locked-on-fault", pid=pid, size_bytes=more)


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
