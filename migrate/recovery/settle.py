"""What becomes of a migration whose driver or agent is gone: one decision, from its journal.

Guardians, ``migrate --recover`` and every new ``migrate`` come here. On the origin a migration that had not
been given away is rolled back, one that the destination had taken is completed, and one in between is in
doubt: the tree stays frozen and cut off. On the destination a tree that runs stays, everything else goes.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from migrate import limits
from migrate.criu import log as criu_log
from migrate.errors import MigrateError, Reason, Refused
from migrate.events import log
from migrate.gap.capture import Capture
from migrate.journal import journal
from migrate.processes import let_go
from migrate.recovery import arrived, chronicle, hold, records, undo, unseen
from migrate.recovery.entries import Criu, Images, Tree
from migrate.recovery.instructions import in_doubt
from migrate.recovery.records import Record
from migrate.states import Outcome, State

COMMITTED, ACTIVATED = State.COMMITTED.value, State.ACTIVATED.value
#: What CRIU writes when what it restored runs, whatever it is to log; and when it gave up what it had built.
#: Source: criu/cr-restore.c restore_root_task(), write_stats() after finalize_restore_detach() and before out_kill.
STATISTICS = "stats-restore"


class Verdict(enum.Enum):
    """How a migration that was left alone ended here; the value says it to the user."""

    COMPLETE = "was complete, removed what it kept"
    ROLLED_BACK = "rolled back; process {pid} goes on here"
    DIED = "rolled back; process {pid} has ended here"
    REMOVED = "rolled back; nothing of it runs here"
    MOVED = "completed; the process runs on {other_host}"
    ARRIVED = "completed; PID {destination_pid}: runs here"
    ENDED = "the copy here has been ended; removed the rest"
    IN_DOUBT = "in doubt"
    UNFINISHED = "not everything could be undone"


#: What a report would call it; the others are no end.
_OUTCOMES = {
    Verdict.ROLLED_BACK: Outcome.ROLLED_BACK,
    Verdict.DIED: Outcome.ENDED,
    Verdict.REMOVED: Outcome.ROLLED_BACK,
    Verdict.MOVED: Outcome.MOVED,
    Verdict.ARRIVED: Outcome.MOVED,
    Verdict.ENDED: Outcome.ENDED,
    Verdict.IN_DOUBT: Outcome.IN_DOUBT,
}


@dataclass(slots=True)
class Settled:
    """A migration that was left alone, and what became of it.

    :ivar problems: for UNFINISHED: what could not be undone, sentences.
    :ivar changed: what was undone and is not as it was before all the same, sentences.
    """

    record: Record
    verdict: Verdict
    problems: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nobody needs its journal any more."""
        return self.verdict not in (Verdict.UNFINISHED, Verdict.IN_DOUBT)

    @property
    def text(self) -> str:
        """It in one line."""
        record = self.record
        said = self.verdict.value.format(
            pid=record.pid, other_host=record.other_host, destination_pid=record.destination_pid
        )
        return f"migration {record.migration_id} of process {record.pid}: {said}"


def settle(directory: Path, capture: Capture | None = None, unseen: bytes | None = None) -> Settled | None:
    """Deal with the journal of an owner that is gone; the caller holds its lock.

    In doubt, unfinished or damaged the journal stays, for ``--recover``; else nothing is left of it.

    :param capture: what still catches the packets for a tree on the origin.
    :param unseen: what the journal says, where *directory* does not lead to it: the caller removes it.
    :return: None when there is no such journal any more.
    """
    try:
        record = records.read(directory) if unseen is None else records.parse(unseen, directory.name)
    except FileNotFoundError:
        return None
    except MigrateError as error:  # damaged: what was done is not known
        return Settled(Record(directory.name), Verdict.UNFINISHED, [f"{error} {error.problem.hint}"])
    with chronicle.of_one_left(record):
        return _settle(directory, record, capture)


def _settle(directory: Path, record: Record, capture: Capture | None) -> Settled:
    settled = _of_role(record, capture)
    tell(settled)
    if settled.verdict is Verdict.UNFINISHED:
        note_problems(directory, settled.problems)
    elif settled.verdict is not Verdict.IN_DOUBT:
        if settled.verdict is Verdict.ARRIVED:
            arrived.keep(record)
        journal.forget(directory)
    return settled


def settle_safely(
    directory: Path, capture: Capture | None = None, unseen: bytes | None = None
) -> Settled | None:
    """:func:`settle`, where a journal that nobody foresaw must not stop what is done for others."""
    try:
        return settle(directory, capture, unseen)
    except Exception as error:
        problems = [f"{type(error).__name__}: {error}"]
        note_problems(directory, problems)
        return Settled(Record(directory.name), Verdict.UNFINISHED, problems)


def tell(settled: Settled) -> None:
    """Have the log of its migration, which is under way, say what became of it."""
    log.tell("settled", verdict=settled.verdict.name, problems=settled.problems)
    if (outcome := _OUTCOMES.get(settled.verdict)) is not None:
        chronicle.ended(settled.record, outcome.value, settled.problems)


def _of_role(record: Record, capture: Capture | None) -> Settled:
    if record.role == "origin":
        return _origin(record, capture)
    if record.role == "destination" or not record.entries:
        return _destination(record)
    # To undo what a destination needs, or to resume what an origin has given away, would be worse than nothing.
    problem = "its first line is lost, so it is not known on which side this host was; look at it by hand"
    return Settled(record, Verdict.UNFINISHED, [problem])


def _origin(record: Record, capture: Capture | None) -> Settled:
    if record.end:
        return Settled(record, Verdict.COMPLETE)
    if record.state == COMMITTED and hold.frozen(record):
        undo.put_doubt_in_order(record)
        return Settled(record, Verdict.IN_DOUBT)
    if record.state == COMMITTED:
        return _settled(record, Verdict.ENDED, undo.kill_origin(record))
    if record.state == ACTIVATED:
        return _settled(record, Verdict.MOVED, undo.kill_origin(record))
    return rolled_back(record, capture)


def rolled_back(record: Record, capture: Capture | None = None) -> Settled:
    """Undo the origin's part, and say whether the process has ended meanwhile."""
    problems = undo.roll_back(record, capture)[1]
    changed = [] if problems else undo.changed(record)  # else whoever tries again says so
    died = undo.root_ended(record) or undo.ended(record)
    settled = _settled(record, Verdict.DIED if died else Verdict.ROLLED_BACK, problems)
    settled.changed = changed
    return settled


def _destination(record: Record) -> Settled:
    if record.end:
        return Settled(record, Verdict.COMPLETE)
    if record.state == ACTIVATED or (record.state == COMMITTED and _criu_let_it_run(record)):
        return _settled(record, Verdict.ARRIVED, undo.tidy_destination(record))
    return _settled(record, Verdict.REMOVED, undo.roll_back(record)[1])


def _settled(record: Record, verdict: Verdict, problems: list[str]) -> Settled:
    return Settled(record, Verdict.UNFINISHED if problems else verdict, problems)


def _criu_let_it_run(record: Record) -> bool:
    """Whether a CRIU that was told to go on, and whose agent died then, has let the tree run.

    It came to the end of its restore, or died on the way there, after it had let go of its tasks; before, they wait
    for it for ever.
    """
    for criu in record.of(Criu):
        criu.end()
    for images in record.of(Images):
        if (Path(images.path) / STATISTICS).exists():
            return not criu_log.gave_up(Path(images.path) / criu_log.OF_RESTORE)
    return let_go.any_runs(task for tree in record.of(Tree) for task in tree.tasks)


def note_problems(directory: Path, problems: list[str]) -> None:
    """Keep what an undo could not do beside the journal, if that can be; ``--recover`` tries it again anyway."""
    with contextlib.suppress(OSError):
        (directory / "problems").write_text("\n".join(problems) + "\n")


def sweep(note: Callable[[str], None]) -> list[Settled]:
    """Settle every migration on this host that nobody owns any more; those under way are left alone.

    :param note: told what was found, in sentences.
    :return: those that need a person.
    """
    from migrate.recovery import unclaimed

    left = []
    for directory in journal.all_of_this_host():
        with journal.owned(directory) as owned:
            settled = settle_safely(directory) if owned else None
        if settled is None:
            continue
        note(f"an earlier {settled.text}")
        for sentence in settled.changed:
            note(sentence)
        if not settled.over:
            left.append(settled)
    for sentence in unclaimed.remove():
        note(f"an earlier {sentence}")
    return left


def clear_the_way(pid: int, note: Callable[[str], None], overlapping: Collection[int] = frozenset()) -> None:
    """Before a new migration of *pid* from here: settle what dead ones have left.

    :param overlapping: processes whose trees are a part of its tree, or the other way round.
    :raises Refused: an earlier migration of it, or of one of those, is in doubt, not wholly undone, or being
        undone.
    """
    deadline = time.monotonic() + limits.SETTLING_S
    concerned = {pid, *overlapping}
    while busy := _being_undone(concerned):
        if time.monotonic() > deadline:
            text = f"an earlier migration of process {busy.pid} ({busy.migration_id}) is still being undone"
            raise Refused([Reason("busy", "origin", text, "Wait until its guardian has ended.")])
        time.sleep(0.02)
    if held := unseen.reason(pid):
        raise Refused([held])
    left = [one for one in sweep(note) if one.record.role == "origin" and one.record.pid in concerned]
    # The number of one that has ended may be that of another process now.
    reasons = [_reason(one) for one in left if not undo.ended(one.record)]
    if reasons:
        raise Refused(reasons)


def _being_undone(pids: Collection[int]) -> Record | None:
    """The migration of one of *pids* that somebody works on: no driver, the caller has claimed the tree."""
    for directory in journal.all_of_this_host():
        with journal.owned(directory) as owned:
            if owned:
                continue
        try:
            record = records.read(directory)
        except (FileNotFoundError, MigrateError):
            continue
        if record.role == "origin" and record.pid in pids:
            return record
    return None


def _reason(settled: Settled) -> Reason:
    record = settled.record
    if settled.verdict is Verdict.IN_DOUBT:
        text = f"process {record.pid} is in doubt: it was given to {record.other_host} and is frozen here"
        return Reason("in-doubt", "origin", text, " ".join(in_doubt(record)))
    text = f"an earlier migration of it could not be undone: {'; '.join(settled.problems)}"
    return Reason("not-undone", "origin", text, "Remove the cause, then run migrate --recover.")
