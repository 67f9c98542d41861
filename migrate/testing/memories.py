"""What every way of :mod:`migrate.memory` must do, with a real process and a real CRIU, which the caller brings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from migrate import memory
from migrate.testing.leftovers import Before

DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One way, and a tree that runs.

    :ivar images: an image directory on this host, empty.
    :ivar tasks: the PIDs of the tree.
    :ivar change: has the tree change some of its memory; :ivar content: what is in it, as the tree says.
    :ivar dump: has CRIU dump the tree and end it, with its pages sent to that descriptor (None: written as images);
        calls the function that it is given as soon as CRIU's process is there.
    :ivar carry: carries the images to another directory, and restores the tree from there.
    :ivar sent: waits until all that is in the directory has been sent.
    :ivar grew: tells who sends that an image has grown.
    """

    kind: str
    images: Path
    tasks: Callable[[], list[int]]
    change: Callable[[], object]
    content: Callable[[], object]
    dump: Callable[[int | None, Callable[[], None]], None]
    carry: Callable[[], None]
    sent: Callable[[], None]
    grew: Callable[[str], None]

    def make(self) -> memory.Memory:
        """The way."""
        return memory.make(self.kind, self.images, self.tasks, self.grew, time.monotonic() + DEADLINE_S)


def the_memory_arrives_as_it_was_at_the_freeze(case: Case) -> None:
    """Also what has changed since it was sent."""
    way = case.make()
    case.change()
    way.before_freeze(case.sent)
    case.change()
    before = case.content()
    _dump(case, way.at_dump())
    case.carry()
    assert case.content() == before


def the_tree_runs_on_as_it_was(case: Case) -> None:
    """Nothing of it is changed before it is dumped."""
    before = case.content()
    case.make().before_freeze(case.sent)
    assert case.content() == before


def a_try_that_came_to_nothing_leaves_nothing(case: Case) -> None:
    """Neither a thread nor a descriptor, and the next one is as the first."""
    way = case.make()
    way.before_freeze(case.sent)
    owned = Before()
    for started in (False, True):
        pages = way.at_dump()
        if started:
            pages.start()
        pages.close()
        pages.close()
    owned.check(within_s=0)
    before = case.content()
    _dump(case, way.at_dump())
    case.carry()
    assert case.content() == before


CHECKS: tuple[Callable[[Case], None], ...] = (
    the_memory_arrives_as_it_was_at_the_freeze,
    the_tree_runs_on_as_it_was,
    a_try_that_came_to_nothing_leaves_nothing,
)


def _dump(case: Case, pages: memory.Pages) -> None:
    case.dump(pages.descriptor, pages.start)
    pages.finish(DEADLINE_S, lambda: None)
    pages.close()
