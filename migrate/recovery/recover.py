"""``migrate --recover``: what a migration that died left on this host, undone or explained.

A journal whose lock is free has no owner any more, and is settled as its guardian would have done. In doubt
the destination is asked; ``--resume ID`` and ``--release ID``, which carry out what a person decided, do so only
if it agrees, or cannot be asked and the person insists.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from migrate import host_name, place, problems
from migrate.errors import MigrateError, UsageError
from migrate.events import log, who
from migrate.journal import journal
from migrate.pb import session_pb2 as pb
from migrate.recovery import arrived, chronicle, doubt, records, settle, unclaimed, undo, unseen, whereabouts
from migrate.recovery.instructions import in_doubt, look, undecided
from migrate.recovery.records import Record
from migrate.recovery.settle import Settled, Verdict
from migrate.report.report import Outcome, Report
from migrate.request import RecoverRequest

#: What is to be done when the destination does not answer.
_UNASKED = (
    "Try again when it can be reached. If it never will be: look there ({look}), and with --force it is done on"
    " your word. If you are wrong, two copies run, or none."
)


def run(request: RecoverRequest) -> Report:
    """Do what *request* asks and report. Migrations under way are left alone.

    The outcome is IN_DOUBT while one is left that a person must decide, else UNTOUCHED.
    """
    report = Report(outcome=Outcome.UNTOUCHED)
    report.trace.hosts["origin"] = host_name.here()
    try:
        with problems.step("recover", "origin"):
            _run(request, report)
    except MigrateError as error:
        report.fail(error)
    return report


def _run(request: RecoverRequest, report: Report) -> None:
    if request.resume or request.release:
        _decide(request, report)
    else:
        _look(report)


def _look(report: Report) -> None:
    unseen_here = unseen.tell(report)
    here = [*journal.all_of_this_host()]
    for directory in here:
        with journal.owned(directory) as owned:
            if not owned:
                report.notes.append(f"migration {directory.name}: {_under_way(directory)}")
            elif settled := settle.settle_safely(directory):
                _tell(_asked(directory, settled, report), report)
    arrivals = arrived.all_of_this_host()
    for migration_id in arrivals:
        said = whereabouts.sentence(whereabouts.find(migration_id, 0.0))
        report.notes.append(f"migration {migration_id} to here: {said}")
    report.notes += (left := unclaimed.remove())
    if not here and not arrivals and not left and not unseen_here:
        report.notes.append("nothing was left here by a migration")


def _under_way(directory: Path) -> str:
    """What can be said of a migration that somebody is at work on."""
    with contextlib.suppress(MigrateError, OSError):
        record = records.read(directory)
        if record.role == "destination":
            return whereabouts.sentence(whereabouts.of(record, owned=False))
    return "under way, left alone"


def _asked(directory: Path, settled: Settled, report: Report) -> Settled:
    """In doubt, ask the destination and do what follows from its answer."""
    record = settled.record
    if settled.verdict is not Verdict.IN_DOUBT:
        return settled
    try:
        answer = doubt.ask(record)
    except MigrateError as error:
        report.notes.append(f"{record.other_host} cannot be asked where the process is: {error}")
        return settled
    report.notes.append(said := doubt.sentence(answer, record.other_host))
    with chronicle.of_one_left(record):
        log.tell("asked", answer=said)
        if answer.where in doubt.THERE:
            return _done(directory, Settled(record, Verdict.MOVED, undo.kill_origin(record)))
        if answer.where == pb.Answer.NOT_HERE:
            return _done(directory, settle.rolled_back(record))
    return settled


def _done(directory: Path, settled: Settled) -> Settled:
    """Remove the journal, unless something could not be done."""
    if settled.problems:
        settle.note_problems(directory, settled.problems)
        settled.verdict = Verdict.UNFINISHED
    else:
        journal.forget(directory)
    settle.tell(settled)
    return settled


def _tell(settled: Settled, report: Report) -> None:
    report.notes += [settled.text, *settled.changed]
    record = settled.record
    _name(record, report)
    if settled.verdict is Verdict.IN_DOUBT:
        report.outcome = Outcome.IN_DOUBT
        report.pid, report.host = record.pid, record.other_host
        report.where = undecided(record.other_host)
        report.instructions += in_doubt(record)
    elif settled.verdict is Verdict.UNFINISHED:
        report.notes += [f"not undone: {problem}" for problem in settled.problems]
        hint = "The notes say what; remove the cause and try again."
        error = MigrateError("not everything could be undone", hint=hint)
        error.stamp("recover", record.role)
        report.fail(error)


def _name(record: Record, report: Report) -> None:
    """Say which migration it is, and where its log is."""
    report.trace.id = record.migration_id
    report.trace.hosts |= {record.role: host_name.here(record.role)} if record.role else {}
    report.trace.logs |= {record.role: str(place.log(record.migration_id))} if record.role else {}


def _decide(request: RecoverRequest, report: Report) -> None:
    migration_id = request.resume or request.release
    if not place.valid_id(migration_id) or not (place.home(migration_id) / "journal").exists():
        raise UsageError(f"there is no migration {migration_id} here", hint="migrate --recover lists them.")
    directory = place.home(migration_id)
    with journal.owned(directory) as owned:
        if not owned:
            raise MigrateError(f"migration {migration_id} is under way", hint="Wait until it has ended.")
        record = records.read(directory)
        if record.role != "origin":
            raise UsageError("that is a destination's", hint=f"Decide on its origin, {record.other_host}.")
        report.pid, report.host = record.pid, record.other_host
        _name(record, report)
        with chronicle.of_one_left(record), problems.step("recover", "origin"):
            log.tell("decided", resume=bool(request.resume), force=request.force, by=who.asked())
            (_resume if request.resume else _release)(directory, record, request, report)
            chronicle.ended(record, report.outcome.value)


def _resume(directory: Path, record: Record, request: RecoverRequest, report: Report) -> None:
    if record.state == settle.ACTIVATED:
        hint = f"End the copy here instead: migrate --recover --release {record.migration_id}"
        raise UsageError(f"the process runs on {record.other_host}: it said so", hint=hint)
    if record.state == settle.COMMITTED:
        _permitted(record, (pb.Answer.NOT_HERE,), request, report)
    _, problems = undo.roll_back(record)
    _forget(directory, problems)
    report.notes += undo.changed(record)
    here = host_name.here(other=record.other_host)
    if undo.root_ended(record):
        report.outcome, report.where = Outcome.ENDED, f"PID {record.pid} has ended on {here}"
        return
    report.outcome = Outcome.ROLLED_BACK
    report.where = f"runs on {here} as PID {record.pid}"


def _release(directory: Path, record: Record, request: RecoverRequest, report: Report) -> None:
    if record.state not in (settle.COMMITTED, settle.ACTIVATED):
        hint = "migrate --recover undoes it."
        raise UsageError(f"the process was never given to {record.other_host}: it is here", hint=hint)
    if record.state == settle.COMMITTED:
        _permitted(record, doubt.THERE, request, report)
    _forget(directory, undo.kill_origin(record))
    report.outcome = Outcome.MOVED
    report.where = f"runs on {record.other_host}"


def _permitted(record: Record, wanted: tuple[int, ...], request: RecoverRequest, report: Report) -> None:
    """Return if the destination says what was decided here, or cannot be asked and the user insists."""
    host = record.other_host
    report.outcome, report.where = Outcome.IN_DOUBT, undecided(host)
    try:
        answer = doubt.ask(record)
    except MigrateError as error:
        text = f"{host} cannot be asked where the process is: {error}"
        if request.force:
            report.notes.append(f"{text}; done all the same, as --force says")
            return
        raise MigrateError(text, hint=_UNASKED.format(look=look(record))) from error
    said = doubt.sentence(answer, host)
    report.notes.append(said)
    if answer.where == pb.Answer.UNDER_WAY:
        raise MigrateError(f"nothing was done: {said}", hint="Wait, then try again.")
    if answer.where not in wanted:
        raise MigrateError(
            f"nothing was done: {said}",
            hint="migrate --recover does what follows from that.",
        )


def _forget(directory: Path, problems: list[str]) -> None:
    """Remove the journal, unless something could not be done."""
    if problems:
        settle.note_problems(directory, problems)
        hint = "Remove the cause and try again."
        raise MigrateError(f"not done: {'; '.join(problems)}", hint=hint)
    journal.forget(directory)
