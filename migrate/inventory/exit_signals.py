"""Children that do not tell their parent of their end by SIGCHLD: CRIU makes every one with that.

Source: man clone(2), "The child termination signal"; man proc(5), exit_signal of /proc/PID/stat.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Collection, Iterator

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle
from migrate.processes import pending

_ENDED = frozenset({"Z", "X"})


def obstacles(inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield those of *inside* whose parent is one of them; to the tree's root its parent is lost anyhow."""
    for pid in inside:
        with contextlib.suppress(proc.Gone):
            stat = proc.stat(pid)
            if stat.ppid in inside and stat.state not in _ENDED and stat.exit_signal != signal.SIGCHLD:
                what = pending.name(stat.exit_signal) if stat.exit_signal else "no signal"
                yield Obstacle(code="exit-signal", pid=pid, what=what)
