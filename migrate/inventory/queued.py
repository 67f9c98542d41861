"""Real-time signals that wait: each takes a place in a queue, of which a user has so many (RLIMIT_SIGPENDING).

CRIU sends them again on the destination, under the limit that the agent has there. How many wait for one process
nothing tells; /proc tells how many places its user has taken.

Source: man proc(5), SigQ; man getrlimit(2); kernel/signal.c sigqueue_alloc(), which heeds no capability.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable

from migrate.inventory import proc
from migrate.processes import pending


def taken(pids: Iterable[int]) -> int:
    """How many places the users of those of *pids* have taken for which a real-time signal waits; 0: none waits."""
    waiting = {
        place.pid
        for place, one in pending.read(pids).items()
        if any(n >= signal.SIGRTMIN for n in one.signals)
    }
    found = 0
    for pid in waiting:
        with contextlib.suppress(proc.Gone):
            found = max(found, int(_queue(pid)[0]))
    return found


def most(pid: int) -> int:
    """How many the user of *pid* may have under its limit."""
    return int(_queue(pid)[1])


def _queue(pid: int) -> list[str]:
    return proc.status(pid).get("SigQ", "0/0").split("/")
