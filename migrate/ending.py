"""How a migration ends for its driver: the report, and what becomes of the journal.

What a failure makes of it depends on the machine's state alone; what is done about it, in each case, is what
a guardian would do (:mod:`migrate.undo`). What cannot be done here is left to it, or to ``--recover``.
"""

from __future__ import annotations

from collections.abc import Callable

from migrate import limits, observed, settle, undo
from migrate.errors import MigrateError
from migrate.instructions import in_doubt
from migrate.journal import Journal, Record
from migrate.link import Link
from migrate.machine import Machine, State
from migrate.pb import session_pb2 as pb
from migrate.report import Outcome, Report
from migrate.request import Request


class Ending:
    """The last part of one migration on the origin.

    :param let_go: gives back what the driver itself holds of the tree: CRIU, borrowed sockets, threads.
    :ivar journal: set when there is one; None again when it is not ours any more.
    :ivar before, seen: the tree's tasks before the freeze, and what the destination saw of them in the end.
    :ivar removed: whether the journal was removed, so that the guardian ends at once.
    """

    def __init__(
        self, request: Request, report: Report, link: Link, machine: Machine, let_go: Callable[[], None]
    ) -> None:
        self._request, self._report, self._link, self._machine = request, report, link, machine
        self._let_go = let_go
        self.journal: Journal | None = None
        self.before: list[pb.TaskState] = []
        self.seen: pb.Activated | None = None
        self.removed = False

    def moved(self) -> None:
        """All steps were taken."""
        self._runs_there()
        self._close(undo.kill_origin)

    def failed(self, error: BaseException) -> None:
        """A step failed with *error*."""
        self._report.fail(error)
        if self._machine.state is State.COMMITTED and isinstance(error, MigrateError) and error.not_there:
            self._take_back()
        self._report.outcome = Outcome[self._machine.failed().name]
        if self._report.outcome is Outcome.MOVED:
            self._let_go()
            self._runs_there()
            self._close(undo.kill_origin)
        elif self._report.outcome is Outcome.IN_DOUBT:
            self._in_doubt()
        else:
            self._roll_back()

    def _runs_there(self) -> None:
        observed.on_destination(self._report, self._request.host, self.before, self.seen)

    def _take_back(self) -> None:
        """The destination has said that it does not run there, and has removed what it had built."""
        self._machine.take_back()
        if self.journal is not None:
            self.journal.state(self._machine.state.value)

    def _roll_back(self) -> None:
        """Undo all. The destination first where it may answer for the addresses already, else we do not wait:
        the process shall run again as soon as possible."""
        announced = self._machine.state in (State.RESTORED, State.SWITCHED)
        confirmed = self._abort_destination(wait=announced)
        self._let_go()
        self._report.destination_pid = 0
        self._close(lambda record: undo.roll_back(record)[1], remind=announced and not confirmed)

    def _abort_destination(self, *, wait: bool) -> bool:
        """Tell the destination to undo; whether it said that it has."""
        try:
            self._link.send(pb.Abort(reason="the origin rolls back"))
            if not wait:
                return False
            aborted = self._link.expect(pb.Aborted, timeout_s=limits.ABORT_S, discard=True)
        except MigrateError:
            return False
        self._report.notes += [f"not undone on the destination: {problem}" for problem in aborted.problems]
        return True

    def _in_doubt(self) -> None:
        """Nobody here knows whether the destination has begun to run it: a person must look."""
        self._report.where = "in doubt: frozen on origin, perhaps running on the destination"
        if self.journal is not None:
            self._report.instructions = in_doubt(self.journal.read())
            self.journal.abandon()
            self.journal = None

    def _close(self, clean_up: Callable[[Record], list[str]], *, remind: bool = False) -> None:
        """Clean up and end the journal, or leave it with what could not be done.

        :param remind: have the guardian announce the addresses again for some seconds.
        """
        if self.journal is None:
            return
        journal, self.journal = self.journal, None
        if problems := clean_up(journal.read()):
            self._report.notes += [f"not undone on the origin: {problem}" for problem in problems]
            self._report.notes.append("try again with migrate --recover")
            settle.note_problems(journal.directory, problems)
            journal.abandon()
            return
        journal.end(self._report.outcome.value)
        if remind:
            journal.abandon()
        else:
            journal.remove()
            self.removed = True
