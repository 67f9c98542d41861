"""The numbers of a tree as it sees them itself: those of this host, unless it has a PID namespace of its own.

This host goes by its own numbers, in the journal, in /proc, whenever it signals or freezes. The other one is told
the tree's, and CRIU, which works in its namespace, writes those into the images. Here one becomes the other. Pure,
but for :func:`read`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping

from migrate.pb.session_pb2 import Surroundings
from migrate.processes import identity


class Numbers:
    """Those of the processes and threads of one tree.

    :param inside: number here -> number in its namespace; empty: it has none of its own, and both are the same.
    """

    def __init__(self, inside: Mapping[int, int] | None = None) -> None:
        self._inside = dict(inside or {})
        self._here = {own: number for number, own in self._inside.items()}

    @property
    def own(self) -> bool:
        """Whether the tree has a namespace of its own."""
        return bool(self._inside)

    def inside(self, number: int) -> int:
        """How the tree numbers the task *number* of this host.

        :raises KeyError: that is not in its namespace.
        """
        return self._inside[number] if self._inside else number

    def those_inside(self, numbers: Iterable[int]) -> list[int]:
        """The same of several; without those that are not in its namespace, or are no more."""
        return (
            [self._inside[one] for one in numbers if one in self._inside] if self._inside else list(numbers)
        )

    def here(self, number: int) -> int:
        """The number on this host of a task that the tree knows by *number*; 0: there is none."""
        return self._here.get(number, 0) if self._inside else number

    def surroundings(self, found: Iterable[Surroundings]) -> list[Surroundings]:
        """Those of the tree's tasks, by its own numbers."""
        if not self._inside:
            return list(found)
        return [self._of_one(one) for one in found]

    def _of_one(self, one: Surroundings) -> Surroundings:
        own = Surroundings()
        own.CopyFrom(one)
        own.pid = self.inside(one.pid)
        for thread in own.threads:
            thread.tid = self.inside(thread.tid)
        return own


def read(pids: Iterable[int]) -> Numbers:
    """Ask the kernel for those of *pids* and of their threads; who has ended is left out.

    Some 20 us for each of them.
    """
    found = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                with contextlib.suppress(ProcessLookupError):
                    found[int(name)] = identity.innermost(int(name))
    return Numbers(found)
