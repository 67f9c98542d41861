"""``migrate --recover``: what a migration that died left on this host, undone or explained.

A journal whose lock is free has no owner any more. Before COMMIT it is rolled back, as its guardian would
have done. An origin's journal from after COMMIT is in doubt: the process may run on the destination, and
only a person can look; ``--resume ID`` and ``--release ID`` carry out what the person decided.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Generator
from pathlib import Path

from migrate import guardian, journal, place, processes, undo
from migrate.errors import MigrateError, UsageError
from migrate.journal import Record
from migrate.report import Outcome, Report
from migrate.request import RecoverRequest
from migrate.ui import Observer
from tcpcp.errors import TcpcpError


def instructions(migration_id: str, pid: int, host: str) -> list[str]:
    """What a person does with a migration in doubt, line by line."""
    name = shlex.quote(host)
    return [
        f"The link was lost after the process had been given away. It is frozen here as PID {pid}, cut off "
        "from the network, and will not run again by itself.",
        f"1. Look whether it runs on the destination:  ssh {name} ps -p {pid}  and  ssh {name} migrate --recover",
        f"2. If it runs there, end the copy here:      migrate --recover --release {migration_id}",
        f"3. If it does not, let it go on here:        migrate --recover --resume {migration_id}",
    ]


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
        with _owned(directory) as owned:
            if owned:
                _settle(directory, report)
            else:
                report.notes.append(f"{directory.name}: under way, left alone")
    if not found:
        report.notes.append("nothing was left here by a migration")


def _settle(directory: Path, report: Report) -> None:
    before = _read(directory)
    record = guardian.settle(directory)
    if record is None:
        what = "was complete, removed what it kept" if before and before.end else _what_was_done(before)
        report.notes.append(f"{directory.name}: {what}")
    elif record.state in guardian.COMMITTED:
        report.outcome = Outcome.IN_DOUBT
        report.pid, report.host = record.pid, record.other_host
        report.where = "in doubt: frozen on origin, perhaps running on the destination"
        report.instructions += instructions(record.migration_id, record.pid, record.other_host)
    else:
        problems = (directory / "problems").read_text().splitlines()
        report.notes += [f"{directory.name}: not undone: {problem}" for problem in problems]
        report.fail(MigrateError("not everything could be undone", phase="recover", hint="See the notes."))


def _what_was_done(record: Record | None) -> str:
    if record is None:
        return "was gone already"
    if record.role == "destination" and record.state in guardian.COMMITTED:
        runs = guardian.tree_runs(record)
        return f"the process {'runs here' if runs else 'does not run here'}; the rest was removed"
    where = f"process {record.pid} goes on here" if record.role == "origin" else "nothing runs here"
    return f"rolled back; {where}"


def _decide(request: RecoverRequest, report: Report) -> None:
    migration_id = request.resume or request.release
    if not place.valid_id(migration_id) or not (place.home(migration_id) / "journal").exists():
        raise UsageError(f"there is no migration {migration_id} here", hint="migrate --recover lists them.")
    directory = place.home(migration_id)
    with _owned(directory) as owned:
        if not owned:
            raise MigrateError(f"migration {migration_id} is under way", phase="recover")
        record = journal.read(directory)
        if record.role != "origin":
            raise UsageError("that is a destination's: decide on the origin")
        report.pid, report.host = record.pid, record.other_host
        if request.resume:
            _resume(directory, record, report)
        else:
            _release(directory, record, report)


def _resume(directory: Path, record: Record, report: Report) -> None:
    _, problems = undo.roll_back(record)
    if problems:
        guardian.note_problems(directory, problems)
        raise MigrateError(f"not undone: {'; '.join(problems)}", phase="recover")
    journal.forget(directory)
    report.outcome = Outcome.ROLLED_BACK
    report.where = f"runs on origin as PID {record.pid}"


def _release(directory: Path, record: Record, report: Report) -> None:
    for entry in record.entries:
        if entry["did"] == "stop":
            processes.end([(pid, start) for pid, start in entry["tasks"]])
    # The filter goes last: sockets that are closed while it holds answer nobody.
    keep = {"stop", "repair", "switch"}
    record.entries = [entry for entry in record.entries if entry["did"] not in keep]
    _, problems = undo.roll_back(record)
    if problems:
        raise MigrateError(f"not removed: {'; '.join(problems)}", phase="recover")
    journal.forget(directory)
    report.outcome = Outcome.MOVED
    report.where = f"runs on {record.other_host}"


def _read(directory: Path) -> Record | None:
    try:
        return journal.read(directory)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _owned(directory: Path) -> Generator[bool, None, None]:
    """Take the journal's lock; False when somebody has it."""
    try:
        lock = journal.take_lock(directory)
    except (BlockingIOError, FileNotFoundError):
        yield False
        return
    try:
        yield True
    finally:
        os.close(lock)
