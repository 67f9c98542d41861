"""Tasks that nobody else would tell us of, watched by pidfd: which have ended, and how the others are."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable

from migrate.processes import identity

#: States in which a task will not go on by itself: dead, or stopped by a signal. Of man proc(5).
DEAD, STOPPED = "ZX", "T"


class Watched:
    """A number of processes, each exactly this one.

    :param tasks: (number, start) of each; one that is gone by now has ended.
    """

    def __init__(self, tasks: Iterable[identity.Identity]) -> None:
        self._poll = select.poll()
        self._by_fd: dict[int, int] = {}
        self._ended: set[int] = set()
        for pid, start in tasks:
            self._add(pid, start)

    def _add(self, pid: int, start: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._ended.add(pid)
            return
        self._by_fd[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        if not identity.alive((pid, start)):
            self._forget(pidfd)

    def ended(self) -> list[int]:
        """The numbers of those that have ended, ascending. A zombie has."""
        for pidfd, _ in self._poll.poll(0):
            self._forget(pidfd)
        return sorted(self._ended)

    def all_ended(self) -> bool:
        """Whether none of them is left."""
        self.ended()
        return not self._by_fd

    def states(self) -> dict[int, str]:
        """The letter of the state of each by its number; "" of those that have ended."""
        found = {pid: _state(pid) for pid in self._by_fd.values()}
        return found | dict.fromkeys(self.ended(), "")

    def close(self) -> None:
        """Watch no more."""
        for pidfd in list(self._by_fd):
            self._poll.unregister(pidfd)
            os.close(pidfd)
        self._by_fd.clear()

    def _forget(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        self._ended.add(self._by_fd.pop(pidfd))
        os.close(pidfd)


def _state(pid: int) -> str:
    try:
        return identity.state(pid)
    except ProcessLookupError:
        return ""
