"""What a way must not leave behind in the process that uses it: a thread, a child, a descriptor."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE_S = 20.0


class Before:
    """What this process has at this moment."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._children, self._descriptors = _children(), _descriptors()

    def check(self, within_s: float = DEADLINE_S) -> None:
        """It has nothing more.

        :param within_s: a thread that ends has this time for it.
        """
        _until(lambda: _threads(self._threads) == [], "no thread is left", within_s)
        assert _children() == self._children, "a child is left"
        assert _descriptors() == self._descriptors, "a descriptor is left"


def _threads(before: set[threading.Thread]) -> list[str]:
    # A call that had no deadline of its own may still hang in a thread, which nobody waits for.
    return [one.name for one in set(threading.enumerate()) - before if one.name != "within"]


def _children() -> set[int]:
    """PIDs of our children, those that nobody has reaped too."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}


def _until(condition: Callable[[], bool], what: str, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
