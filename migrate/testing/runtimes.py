"""What every runtime of :mod:`migrate.runtime` must do, with a real tree and a real CRIU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from migrate import runtime
from migrate.criu.worker import Options, Worker
from migrate.processes import identity
from migrate.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Case:
    """One runtime, and a tree that it keeps and that runs. Each check needs a tree of its own.

    :ivar pid: of the tree's root, on the origin and on the destination.
    :ivar images: an empty directory.
    :ivar dumped: what is to be done when CRIU has ended the tree: its number is free again afterwards.
    :ivar runs: returns when the tree has been seen to run, and fails if it does not.
    :ivar other: makes a process that is none of the tree's, and gives its PID.
    """

    name: str
    pid: int
    images: Path
    dumped: Callable[[], None]
    runs: Callable[[], None]
    other: Callable[[], AbstractContextManager[int]]

    @property
    def runtime(self) -> Runtime:
        """It, by its name."""
        return runtime.find(self.name)

    def options(self, log: str, fill: Callable[..., None]) -> Options:
        """For CRIU, with what the runtime fills in."""
        return Options(self.images, log, more=functools.partial(fill, shell_job=False))

    def dump(self) -> None:
        """Have CRIU dump the tree, and end it."""
        worker = Worker()
        try:
            for _ in worker.dump(self.pid, self.options("dump.log", self.runtime.dump_options)):
                pass
        finally:
            worker.close()
        self.dumped()

    def restored(self, mark: str) -> tuple[list[identity.Identity], str, str]:
        """Have CRIU restore it; what an undo wants to know of it."""
        worker = Worker(role="destination", mark=mark)
        tasks: list[identity.Identity] = []
        try:
            for stage in worker.restore(self.options("restore.log", self.runtime.restore_options)):
                if stage.name == "post-restore":
                    tasks.append(identity.identity(stage.pid or self.pid))
        finally:
            worker.close()
        return tasks, mark, str(self.images)


def it_is_found(case: Case) -> None:
    """By the tree at the origin, and by its name elsewhere."""
    assert runtime.of(case.pid).name == case.name == case.runtime.name


def it_sees_what_it_keeps(case: Case) -> None:
    """The root first, and only what lives."""
    found = case.runtime.inventory(case.pid)
    assert found.root_pid == found.tasks[0].pid == case.pid
    assert all(identity.alive(identity.identity(task.pid)) for task in found.tasks)
    case.runs()


def a_tree_comes_back_and_is_given_back(case: Case) -> None:
    """With what it says to CRIU, on both sides."""
    case.dump()
    built = case.restored("MIGRATE_TEST=back")
    assert case.runtime.give_back(case.pid) == []
    case.runs()
    case.runtime.undo(*built)


def an_undo_leaves_nothing_of_it_and_touches_nobody_else(case: Case) -> None:
    """Of what was restored, perhaps twice, and where there was nothing."""
    case.dump()
    with case.other() as stranger:
        case.runtime.undo([], "MIGRATE_TEST=none", str(case.images))
        built = case.restored("MIGRATE_TEST=undo")
        process = built[0][0]
        assert identity.alive(process)
        case.runtime.undo(*built)
        case.runtime.undo(*built)
        assert not identity.alive(process)
        assert identity.alive(identity.identity(stranger))


CHECKS: tuple[Callable[[Case], None], ...] = (
    it_is_found,
    it_sees_what_it_keeps,
    a_tree_comes_back_and_is_given_back,
    an_undo_leaves_nothing_of_it_and_touches_nobody_else,
)
