"""Memory that is not there yet: a process that somebody else's CRIU has restored may run before all is.

Where it is not yet, a dump would find no page, and zeros would be there from then on.
Source: Documentation/filesystems/proc.rst, VmFlags of smaps: ``um``; fs/proc/task_mmu.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle

#: Of who fills in, CRIU's own: no migration of ours does it.
_FILLS_IN = re.compile(rb"(^|/)criu\0(.*\0)?lazy-pages\0", re.DOTALL)
_MISSING = re.compile(r"^VmFlags:.* um( |$)", re.MULTILINE)


def obstacles(pids: Iterable[int]) -> Iterator[Obstacle]:
    """Yield one for each of *pids* of whose memory some is waited for; nothing of those that have ended.

    To look at all mappings takes the kernel some time for much memory: done if there is anybody who fills in.
    """
    if not any(map(_fills_in, proc.pids())):
        return
    for pid in pids:
        try:
            smaps = proc.text(pid, "smaps")
        except proc.Gone:
            continue
        if is_waited_for(smaps):
            yield Obstacle(code="incomplete", pid=pid)


def is_waited_for(smaps: str) -> bool:
    """Whether whoever touches memory that is missing waits for it, by the content of /proc/PID/smaps."""
    return _MISSING.search(smaps) is not None


def _fills_in(pid: int) -> bool:
    try:
        return _FILLS_IN.search(Path(f"/proc/{pid}/cmdline").read_bytes()) is not None
    except OSError:  # it has ended
        return False
