"""How a migration ends for its driver: the report, and what becomes of the journal.

What a failure makes of it depends on the machine's state alone; what is done about it, in each case, is what
a guardian would do (:mod:`migrate.recovery.undo`). What cannot be done here is left to it, or to ``--recover``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence

from migrate import host_name, limits
from migrate.errors import MigrateError
from migrate.events import line, log
from migrate.gap.capture import Capture
from migrate.gap.file import GapFile
from migrate.journal.journal import Journal
from migrate.link import failure
from migrate.link.link import Link
from migrate.machine import Machine
from migrate.origin import closing, observed
from migrate.pb import session_pb2 as pb
from migrate.processes import identity
from migrate.recovery import doubt, hold, records, undo, way_back
from migrate.recovery.guardian import Guardian
from migrate.recovery.instructions import in_doubt, look, undecided
from migrate.recovery.records import Record
from migrate.report.report import Outcome, Report
from migrate.request import Request
from migrate.states import State
from tcpcp.errors import TcpcpError


class Ending:
    """The last part of one migration on the origin.

    :param let_go: gives back what the driver itself holds of the tree: CRIU, borrowed sockets, threads.
    :ivar journal: set when there is one; None again when it is not ours any more.
    :ivar guardian: who waits for our end.
    :ivar seen: what is known of the tree, here and there.
    :ivar caught: ends the forwarding of packets, and returns what catches them; None: nothing does.
    :ivar too_late: says what was sent to the copy here since it was given away, perhaps in doubt where it runs.
    :ivar removed: whether the journal was removed, so that the guardian ends at once.
    """

    def __init__(
        self, request: Request, report: Report, link: Link, machine: Machine, let_go: Callable[[], None]
    ) -> None:
        self._request, self._report, self._link, self._machine = request, report, link, machine
        self._let_go = let_go
        self.journal: Journal | None = None
        self.guardian: Guardian | None = None
        self.seen = observed.Seen()
        self.caught: Callable[[], Capture | None] = lambda: None
        self.too_late: Callable[[bool], list[str]] = lambda doubt: []
        self.removed = False
        self._record: Record | None = None

    def moved(self) -> None:
        """All steps were taken."""
        self._runs_there()
        self._close(undo.kill_origin)

    def failed(self, error: BaseException) -> None:
        """A step failed with *error*."""
        self._report.fail(error)
        if isinstance(error, MigrateError):
            self._not_undone(error.left)
        if self._machine.state is State.COMMITTED and isinstance(error, MigrateError) and error.not_there:
            self._take_back()
        self._report.outcome = self._machine.failed()
        if self._report.outcome is Outcome.MOVED:
            record = records.read(self.journal.directory) if self.journal is not None else None
            self._kill_here(record)
            self._let_go()
            self._runs_there()
            self._close(undo.kill_origin)
            if record is not None:
                self._heed(self._see_to_the_other_side(record, doubt.THERE))
        elif self._report.outcome is Outcome.IN_DOUBT:
            self._in_doubt()
        else:
            self._roll_back()

    def reap(self) -> None:
        """Reap the guardian, if nothing keeps it any more."""
        if self.guardian is not None and self.removed:
            self.guardian.wait_end()

    def _runs_there(self, found: pb.Answer | None = None) -> None:
        """:param found: what the destination has said when it was asked."""
        if found is not None:
            self._report.destination_pid = found.destination_pid
        observed.on_destination(self._report, self._request.host, self.seen)
        self._heed(found)

    def _heed(self, found: pb.Answer | None) -> None:
        """The destination has looked since it said that the process runs."""
        if found is not None and found.where == pb.Answer.ENDED:
            observed.ended_there(self._report, self._request.host)

    @staticmethod
    def _kill_here(record: Record | None) -> None:
        """The copy here must never run again: before anybody lets go of it."""
        if record is not None:
            identity.kill(hold.frozen(record))

    def _take_back(self) -> None:
        """The destination has said that it does not run there, and has removed what it had built."""
        self._machine.take_back()
        if self.journal is not None:
            self.journal.state(self._machine.state.value)

    def _roll_back(self) -> None:
        """Undo all. The destination first where it may answer for the addresses already, else we do not wait:
        the process shall run again as soon as possible."""
        announced = self._machine.state in (State.RESTORED, State.SWITCHED)
        record = self._record = records.read(self.journal.directory) if self.journal is not None else None
        told = self._tell_abort()
        confirmed = told and announced and self._hears_aborted(limits.ABORT_S)
        self._let_go()
        self._report.destination_pid = 0
        self._close(self._undo, remind=announced and not confirmed)
        if told and not confirmed:
            confirmed = self._hears_aborted(limits.UNDO_S)
        if record is not None and not confirmed:
            self._see_to_the_other_side(record, (pb.Answer.NOT_HERE,))

    def _undo(self, record: Record) -> list[str]:
        problems = undo.roll_back(record, self.caught())[1]
        self._report.notes += [] if problems else undo.changed(record)  # else whoever tries again says so
        return problems

    def _keep(self, packets: Sequence[bytes]) -> None:
        """What reached the destination while it had the addresses is for the process, too."""
        if self.journal is not None:
            GapFile(self.journal.directory).add(packets)
        elif self._record is not None:
            way_back.late(self._record, packets)

    def _tell_abort(self) -> bool:
        """Tell the destination to undo; whether the link lived."""
        try:
            error = self._report.error
            reason = failure.sendable(error.text if error is not None else "the origin rolls back")
            self._link.send(pb.Abort(reason=reason[: line.MOST_TEXT], outcome=self._report.outcome.value))
        except MigrateError:
            return False
        return True

    def _hears_aborted(self, timeout_s: float) -> bool:
        """Whether the destination says that it has undone everything."""
        try:
            aborted = self._link.expect(pb.Aborted, timeout_s=timeout_s, discard=True)
        except MigrateError:
            return False
        self._keep(aborted.packets)
        self._not_undone(aborted.problems)
        return True

    def _not_undone(self, problems: Iterable[str]) -> None:
        self._report.notes += [f"not undone on {self._request.host}: {problem}" for problem in problems]

    def _see_to_the_other_side(self, record: Record, wanted: tuple[int, ...]) -> pb.Answer | None:
        """The destination has not confirmed that it has cleaned up. A new agent there does it, and says so.

        If there can be none, or somebody is still at work, the user is told what to do.
        """
        self._link.close(flush_s=0.0)
        with contextlib.suppress(MigrateError, OSError):
            found = doubt.ask(record)
            if found.where in wanted:
                return found
        self._report.notes.append(
            f"{record.other_host} has not confirmed that it has cleaned up. It does that by itself, unless its "
            f"agent and guardian were killed or stand still; to be sure, run later:  {look(record)}"
        )
        return None

    def _in_doubt(self) -> None:
        """Only the destination knows whether it has begun to run it, so it is asked, in a session of its own."""
        self._link.close(flush_s=0.0)  # if the agent lives it sees that, and settles
        journal = self.journal
        if journal is None:
            return
        found = doubt.find_out(records.read(journal.directory))
        log.tell("asked", answer=_said(found, self._request.host))
        if not isinstance(found, pb.Answer):
            self._stays_in_doubt(
                journal, f"{self._request.host} cannot be asked where the process is: {found}"
            )
            return
        said = doubt.sentence(found, self._request.host)
        if found.where in doubt.THERE:
            self._report.notes += [said, *self._sent_too_late(doubt=False)]
            self._kill_here(records.read(journal.directory))
            self._let_go()
            self._runs_there(found)
            self._close(undo.kill_origin)
        elif found.where == pb.Answer.NOT_HERE:
            self._report.notes.append(said)
            self._let_go()
            self._report.outcome, self._report.destination_pid = Outcome.ROLLED_BACK, 0
            self._close(self._undo, remind=True)
        else:
            self._stays_in_doubt(journal, said)

    def _sent_too_late(self, *, doubt: bool) -> list[str]:
        """What can be seen of it; that nothing can be is no reason to end otherwise."""
        try:
            return self.too_late(doubt)
        except (MigrateError, TcpcpError, OSError) as error:
            log.error(error)
            return []

    def _stays_in_doubt(self, journal: Journal, why: str) -> None:
        """A person must look."""
        self._report.notes += [why, *self._sent_too_late(doubt=True)]
        self._report.where = undecided(self._request.host)
        self._report.instructions = in_doubt(records.read(journal.directory))
        journal.abandon()
        self.journal = None

    def _close(self, clean_up: Callable[[Record], list[str]], *, remind: bool = False) -> None:
        """Clean up and end the journal, or leave it with what could not be done.

        :param remind: have the guardian announce the addresses again for some seconds.
        """
        if self.journal is None:
            return
        journal, self.journal = self.journal, None
        if problems := closing.clean_up(journal, clean_up, self._report.outcome.value):
            self._report.notes += [
                f"not undone on {host_name.here(other=self._request.host)}: {problem}" for problem in problems
            ]
            self._report.notes.append("try again with migrate --recover")
        elif remind and closing.somebody_reminds(self.guardian, journal):
            journal.abandon()
        else:
            journal.remove()
            self.removed = True


def _said(found: pb.Answer | MigrateError, host: str) -> str:
    return doubt.sentence(found, host) if isinstance(found, pb.Answer) else str(found)
