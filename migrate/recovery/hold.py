"""What keeps the origin's copy still once it may run elsewhere: something that only we let go.

A frozen cgroup (:mod:`migrate.processes.freezer`) where there may be one, else a keeper
(:mod:`migrate.processes.keeper`). Either outlives everybody, is in the journal, and is looked at once more
before the process is given away. A SIGSTOP that waits for every task is the second line, in case somebody
takes the first one away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from migrate.criu.worker import Worker
from migrate.errors import MigrateError
from migrate.journal.journal import Journal
from migrate.processes import freezer, identity, keeper
from migrate.processes.freezer import Freezer, Unavailable
from migrate.processes.identity import Identity
from migrate.recovery import entries
from migrate.recovery.records import Record


class Hold:
    """That of one migration."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._freezer = Freezer(f"migrate-{journal.migration_id}", self._about_to_make)
        self._keeper: keeper.Keeper | None = None
        self._criu: Identity = (0, 0)
        self._tasks: list[Identity] = []

    def _about_to_make(self, path: Path) -> None:
        self._journal.did(entries.Freezer(str(path)))

    def prepare(self, tasks: Callable[[], Iterable[int]]) -> list[str]:
        """Everything that can be done while the tree runs; again for what it has forked since.

        :param tasks: reads the tree.
        :return: what the user should know about it, sentences.
        """
        if self._keeper is not None:
            return []
        try:
            self._freezer.enter(tasks)
        except Unavailable as error:
            self._keeper = keeper.Keeper()
            return [f"kept still by a process, not by a frozen cgroup: {error}"]
        return []

    def keep(self, tasks: list[Identity], stopping: list[Identity], worker: Worker) -> None:
        """From now on *tasks*, held by CRIU after its dump, stay where they are until we let go.

        :param stopping: those of *tasks* for which a SIGSTOP waits.
        :raises MigrateError: they cannot be held.
        """
        self._criu, self._tasks = (worker.pid, worker.start), tasks
        if self._keeper is not None:
            self._journal.did(entries.Keeper(*self._keeper.identity))
            self._keeper.keep(self._criu, worker.fileno(), tasks, stopping)
            return
        try:
            self._freezer.freeze(pid for pid, _ in tasks)
        except Unavailable as error:
            raise MigrateError(f"the process cannot be frozen: {error}") from error

    def check(self) -> None:
        """Look once more whether all of it is held.

        :raises MigrateError: somebody has let go of a task: it may have run since it was dumped.
        """
        if self._keeper is not None:
            problem = keeper.problem(self._keeper.identity, self._criu, self._tasks)
        else:
            problem = freezer.problem(self._freezer.paths, self._tasks)
        if problem:
            hint = "Find out who did that, and try again."
            text = f"the process did not stay frozen, somebody else let it go: {problem}"
            raise MigrateError(text, hint=hint)

    def leave(self, worker: Worker) -> bool:
        """In doubt: whether the tree stays held because *worker* is left to the keeper."""
        return self._keeper is not None and identity.alive(self._keeper.identity) and worker.leave()

    def let_go(self) -> None:
        """Have a keeper let go: the tree is CRIU's alone again. What is frozen stays for the undo."""
        if self._keeper is not None:
            self._keeper.close()


def again(record: Record) -> None:
    """Of a migration in doubt: hold its tree again if somebody has let it go. A keeper sees to that itself."""
    freezer.freeze_again(Path(one.path) for one in record.of(entries.Freezer))


def said(record: Record) -> str:
    """What holds the tree of a migration in doubt: a sentence."""
    paths = freezer.those_there(Path(one.path) for one in record.of(entries.Freezer))
    living = frozen(record)
    if paths and not freezer.problem(paths, living):
        return "A frozen cgroup keeps it still: only SIGKILL gets through."
    keepers = [one.process for one in record.of(entries.Keeper)]
    criu = [one.process for one in record.of(entries.Criu)]
    if keepers and criu and not keeper.problem(keepers[-1], criu[-1], living):
        return f"Process {keepers[-1][0]}, migrate.processes.keeping, keeps it still: leave that one alone."
    return "What kept it still has been taken away: only a SIGSTOP does, so send it no SIGCONT."


def kept(record: Record) -> bool:
    """Whether a keeper lives, which needs CRIU."""
    return any(identity.alive(one.process) for one in record.of(entries.Keeper))


def frozen(record: Record) -> list[Identity]:
    """The tasks of the origin's tree that are alive."""
    return sorted(task for task in tasks(record) if identity.alive(task))


def tasks(record: Record) -> set[Identity]:
    """The tasks of the origin's tree, as far as they are known yet."""
    stopped = {task for one in record.of(entries.Stop) for task in one.tasks}
    return stopped.union(*(one.tasks for one in record.of(entries.Repair)))
