"""``migrate --recover``: what a migration that died left on this host, undone or explained.

A journal whose lock is free has no owner any more, and is settled as its guardian would have done. In doubt,
only a person can look; ``--resume ID`` and ``--release ID`` carry out what the person decided.
"""

from __future__ import annotations

import os
from pathlib import Path

from migrate import journal, place, settle, undo
from migrate.errors import MigrateError, UsageError
from migrate.instructions import in_doubt
from migrate.journal import Record
from migrate.report import Outcome, Report
from migrate.request import RecoverRequest
from migrate.settle import Settled, Verdict
from migrate.ui import Observer
from tcpcp.errors import TcpcpError


def run(request: RecoverRequest, observer: Observer) -> Report:
    """Do what *request* asks and report. Migrations under way are left alone.

    The outcome is IN_DOUBT while one is left that a person must decide, else UNTOUCHED.
    """
    report = Report(outcome=Outcome.UNTOUCHED)
    try:
        if os.geteuid() != 0:
            raise MigrateError("needs root", phase="recover", hint="Run it as root.")
        if request.resume or request.release:
            _decide(request, report)
        else:
            _look(report)
    except (MigrateError, TcpcpError, OSError) as error:
        report.fail(error)
    observer.finished(report)
    return report


def _look(report: Report) -> None:
    found = 0
    for directory in journal.all_of_this_host():
        found += 1
        with journal.owned(directory) as owned:
            if not owned:
                report.notes.append(f"migration {directory.name}: under way, left alone")
            elif settled := settle.settle(directory):
                _tell(settled, report)
    if not found:
        report.notes.append("nothing was left here by a migration")


def _tell(settled: Settled, report: Report) -> None:
    report.notes.append(settled.text)
    record = settled.record
    if settled.verdict is Verdict.IN_DOUBT:
        report.outcome = Outcome.IN_DOUBT
        report.pid, report.host = record.pid, record.other_host
        report.where = "in doubt: frozen on origin, perhaps running on the destination"
        report.instructions += in_doubt(record)
    elif settled.verdict is Verdict.UNFINISHED:
        report.notes += [f"not undone: {problem}" for problem in settled.problems]
        hint = "The notes say what; remove the cause and try again."
        report.fail(MigrateError("not everything could be undone", phase="recover", hint=hint))


def _decide(request: RecoverRequest, report: Report) -> None:
    migration_id = request.resume or request.release
    if not place.valid_id(migration_id) or not (place.home(migration_id) / "journal").exists():
        raise UsageError(f"there is no migration {migration_id} here", hint="migrate --recover lists them.")
    directory = place.home(migration_id)
    with journal.owned(directory) as owned:
        if not owned:
            raise MigrateError(f"migration {migration_id} is under way", phase="recover")
        record = journal.read(directory)
        if record.role != "origin":
            raise UsageError("that is a destination's", hint="Decide on the origin.")
        report.pid, report.host = record.pid, record.other_host
        if request.resume:
            _resume(directory, record, report)
        else:
            _release(directory, record, report)


def _resume(directory: Path, record: Record, report: Report) -> None:
    if record.state == settle.ACTIVATED:
        hint = f"End the copy here instead: migrate --recover --release {record.migration_id}"
        raise UsageError(f"the process runs on {record.other_host}: it said so", hint=hint)
    _, problems = undo.roll_back(record)
    _forget(directory, problems)
    if undo.root_ended(record):
        report.outcome, report.where = Outcome.ENDED, f"PID {record.pid} has ended on origin"
        return
    report.outcome = Outcome.ROLLED_BACK
    report.where = f"runs on origin as PID {record.pid}"


def _release(directory: Path, record: Record, report: Report) -> None:
    if record.state not in (settle.COMMITTED, settle.ACTIVATED):
        hint = "migrate --recover undoes it."
        raise UsageError(f"the process was never given to {record.other_host}: it is here", hint=hint)
    _forget(directory, undo.kill_origin(record))
    report.outcome = Outcome.MOVED
    report.where = f"runs on {record.other_host}"


def _forget(directory: Path, problems: list[str]) -> None:
    """Remove the journal, unless something could not be done."""
    if problems:
        settle.note_problems(directory, problems)
        hint = "Remove the cause and try again."
        raise MigrateError(f"not done: {'; '.join(problems)}", phase="recover", hint=hint)
    journal.forget(directory)
