"""What the kernel has of a process and nobody can give to another one: it begins anew, which a note says.

Source: man setrlimit(2), RLIMIT_CPU: what a process has used is counted from where it was made. man prctl(2),
PR_SET_MEMORY_MERGE: a process sets it for itself; CRIU restores the advice of each mapping, not what comes later.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterable, Iterator

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle


def obstacles(pids: Iterable[int]) -> Iterator[Obstacle]:
    """Yield what it is of *pids*; nothing of those that have ended, or whose limits this root may not see."""
    for pid in pids:
        with contextlib.suppress(OSError):
            soft, _ = resource.prlimit(pid, resource.RLIMIT_CPU)
            if soft != resource.RLIM_INFINITY:
                yield Obstacle(code="processor-time", pid=pid, what=str(soft))
        with contextlib.suppress(OSError, proc.Gone):
            if "ksm_merge_any: yes" in proc.text(pid, "ksm_stat"):
                yield Obstacle(code="memory-merge", pid=pid)
