"""How a migration ends for its driver: the report, and what becomes of the journal.

What a failure makes of it depends on the machine's state alone; what is done about it, in each case, is what
a guardian would do (:mod:`migrate.recovery.undo`). What cannot be done here is left to it, or to ``--recover``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from migrate import host_name, limits
from migrate.errors import MigrateError
from migrate.events import log
from migrate.gap.capture import Capture
from migrate.gap.file import GapFile
from migrate.journal.journal import Journal
from migrate.origin import closing, observed
from migrate.origin.move import Move
from migrate.origin.other_side import OtherSide
from migrate.pb import session_pb2 as pb
from migrate.processes import identity
from migrate.recovery import doubt, hold, records, undo, way_back
from migrate.recovery.guardian import Guardian
from migrate.recovery.instructions import in_doubt, look, undecided
from migrate.recovery.records import Record
from migrate.report.report import Outcome
from migrate.states import State
from tcpcp.errors import TcpcpError


class Ending:
    """The last part of one migration on the origin, once there is a journal.

    :param guardian: who waits for our end.
    :param caught: ends the forwarding of packets, and returns what catches them.
    """

    def __init__(
        self, move: Move, journal: Journal, guardian: Guardian, caught: Callable[[], Capture | None]
    ) -> None:
        self._move, self._report, self._machine = move, move.account.report, move.machine
        self._journal, self._guardian, self._caught = journal, guardian, caught
        self._other_side = OtherSide(move.link, self._report)
        self._too_late: Callable[[bool], list[str]] = lambda doubt: []
        #: Whether the journal is ours: until it is closed, or left to somebody else.
        self._ours = True
        #: Whether it was removed, so that the guardian ends at once.
        self._removed = False

    def given_away(self, too_late: Callable[[bool], list[str]]) -> None:
        """The copy here never runs again.

        :param too_late: says what was sent to it since, perhaps in doubt where the process runs.
        """
        self._too_late = too_late

    def moved(self) -> None:
        """All steps were taken."""
        self._runs_there()
        self._close(undo.kill_origin)

    def failed(self, error: BaseException) -> None:
        """A step failed with *error*."""
        self._report.fail(error)
        if isinstance(error, MigrateError):
            self._other_side.not_undone(error.left)
        if self._machine.state is State.COMMITTED and isinstance(error, MigrateError) and error.not_there:
            self._take_back()
        self._report.outcome = self._machine.failed()
        if self._report.outcome is Outcome.MOVED:
            self._runs_there_only()
        elif self._report.outcome is Outcome.IN_DOUBT:
            self._in_doubt()
        else:
            self._roll_back()

    def reap(self) -> None:
        """Reap the guardian, if nothing keeps it any more."""
        if self._removed:
            self._guardian.wait_end()

    def _runs_there_only(self) -> None:
        """What failed came after it had begun to run there. Where the journal is closed nothing is left to do."""
        self._runs_there()  # first: that it was seen there is true whatever fails below
        record = self._read() if self._ours else None
        if record is not None:
            self._kill_here(record)
        self._move.held.let_go()
        self._close(undo.kill_origin)
        if record is not None:
            found = self._see_to_the_other_side(record, doubt.THERE)
            if found is None:
                observed.not_since(self._report, self._move.request.host)
            self._heed(found)

    def _read(self) -> Record:
        return records.of(self._journal)

    def _runs_there(self, found: pb.Answer | None = None) -> None:
        """:param found: what the destination has said when it was asked."""
        if found is not None:
            self._report.destination_pid = found.destination_pid
        observed.on_destination(self._report, self._move.request.host, self._move.seen)
        self._heed(found)

    def _heed(self, found: pb.Answer | None) -> None:
        """The destination has looked since it said that the process runs."""
        if found is not None and found.where == pb.Answer.ENDED:
            observed.ended_there(self._report, self._move.request.host)

    @staticmethod
    def _kill_here(record: Record) -> None:
        """The copy here must never run again: before anybody lets go of it."""
        undo.watch_no_more(record)
        identity.kill(hold.frozen(record))

    def _take_back(self) -> None:
        """The destination has said that it does not run there, and has removed what it had built."""
        self._machine.take_back()
        self._journal.state(self._machine.state.value)

    def _roll_back(self) -> None:
        """Undo all. The destination first where it may answer for the addresses already, else we do not wait:
        the process shall run again as soon as possible."""
        announced = self._machine.state in (State.RESTORED, State.SWITCHED)
        record, other = self._read(), self._other_side
        told = other.tell_abort()
        aborted = other.hear_aborted(limits.ABORT_S) if told and announced else None
        # What reached the destination while it had the addresses is for the process, too.
        if aborted is not None:
            GapFile(self._journal.directory).add(aborted.packets)
        self._move.held.let_go()
        self._report.destination_pid = 0
        self._close(self._undo, remind=announced and aborted is None)
        if told and aborted is None:
            aborted = other.hear_aborted(limits.UNDO_S)
            if aborted is not None:
                way_back.late(record, aborted.packets)
        if aborted is None:
            self._see_to_the_other_side(record, (pb.Answer.NOT_HERE,))

    def _undo(self, record: Record) -> list[str]:
        problems = undo.roll_back(record, self._caught())[1]
        self._report.notes += [] if problems else undo.changed(record)  # else whoever tries again says so
        return problems

    def _see_to_the_other_side(self, record: Record, wanted: tuple[int, ...]) -> pb.Answer | None:
        """The destination has not confirmed that it has cleaned up. A new agent there does it, and says so.

        If there can be none, or somebody is still at work, the user is told what to do.
        """
        self._move.link.close(flush_s=0.0)
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
        self._move.link.close(flush_s=0.0)  # if the agent lives it sees that, and settles
        host = self._move.request.host
        self._report.where = undecided(host)
        found = doubt.find_out(self._read())
        log.tell("asked", answer=_said(found, host))
        if not isinstance(found, pb.Answer):
            self._stays_in_doubt(f"{host} cannot be asked where the process is: {found}")
            return
        said = doubt.sentence(found, host)
        if found.where in doubt.THERE:
            self._report.notes += [said, *self._sent_too_late(doubt=False)]
            self._kill_here(self._read())
            self._move.held.let_go()
            self._runs_there(found)
            self._close(undo.kill_origin)
        elif found.where == pb.Answer.NOT_HERE:
            self._report.notes.append(said)
            self._move.held.let_go()
            self._report.outcome, self._report.destination_pid = Outcome.ROLLED_BACK, 0
            self._close(self._undo, remind=True)
        else:
            self._stays_in_doubt(said)

    def _sent_too_late(self, *, doubt: bool) -> list[str]:
        """What can be seen of it; that nothing can be is no reason to end otherwise."""
        try:
            return self._too_late(doubt)
        except (MigrateError, TcpcpError, OSError) as error:
            log.error(error)
            return []

    def _stays_in_doubt(self, why: str) -> None:
        """A person must look."""
        self._report.notes += [why, *self._sent_too_late(doubt=True)]
        self._report.instructions = in_doubt(self._read())
        self._journal.abandon()
        self._ours = False

    def _close(self, clean_up: Callable[[Record], list[str]], *, remind: bool = False) -> None:
        """Clean up and end the journal, or leave it with what could not be done.

        :param remind: have the guardian announce the addresses again for some seconds.
        """
        if not self._ours:
            return
        journal, self._ours = self._journal, False
        if problems := closing.clean_up(journal, clean_up, self._report.outcome.value):
            self._report.notes += [
                f"not undone on {host_name.here(other=self._report.host)}: {problem}" for problem in problems
            ]
            self._report.notes.append("try again with migrate --recover")
        elif remind and closing.somebody_reminds(self._guardian, journal):
            journal.abandon()
        else:
            journal.remove()
            self._removed = True


def _said(found: pb.Answer | MigrateError, host: str) -> str:
    return doubt.sentence(found, host) if isinstance(found, pb.Answer) else str(found)
