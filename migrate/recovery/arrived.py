"""Processes that came here although their origin could not be told: kept, since it will ask one day.

A journal is removed when all is done. That there is none must mean that the process never ran here, so what
ran without the origin's last word is noted before: a file ``/run/migrate/.arrived/ID`` with the process's
number and start. It is not removed when the origin has asked: it may be killed before it has done what
follows from the answer, and ask again.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from migrate import place
from migrate.errors import MigrateError
from migrate.journal import stored
from migrate.processes import identity
from migrate.recovery.entries import Tree
from migrate.recovery.records import Record

#: How long it is kept after the process has ended.
KEPT_S = 30 * 86400.0


def keep(record: Record) -> None:
    """Note that the process of *record*, the destination's journal, runs here.

    :raises OSError: it could not be written; the journal must stay then.
    """
    directory = _directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _forget_old()
    pid, start = root(record)
    made = directory / f"{record.migration_id}.new"
    made.write_text(f"{pid} {start}\n")
    made.replace(directory / record.migration_id)


def find(migration_id: str) -> identity.Identity | None:
    """The process that came here by that migration without its origin's last word; None: there is none.

    :raises MigrateError: what was noted of it is damaged.
    """
    path = _directory() / migration_id
    try:
        words = stored.read(path).split()
    except FileNotFoundError:
        return None
    try:
        return int(words[0]), int(words[1])
    except (IndexError, ValueError):
        raise stored.Damaged(path, "it does not name a process") from None


def all_of_this_host() -> list[str]:
    """The ids of the migrations of which one is noted."""
    names = sorted(path.name for path in _directory().glob("*")) if _directory().is_dir() else []
    return [*filter(place.valid_id, names)]


def root(record: Record) -> identity.Identity:
    """The root of the tree of *record*, the destination's journal, as this host numbers it; (0, 0): unknown."""
    tasks = [task for built in record.of(Tree) for task in built.tasks]
    return next((task for task in tasks if task[0] == record.destination_pid), (0, 0))


def _forget_old() -> None:
    for migration_id in all_of_this_host():
        path = _directory() / migration_id
        with contextlib.suppress(OSError, MigrateError):
            process = find(migration_id)
            if process and not identity.alive(process) and time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink()


def _directory() -> Path:
    return place.STATE / ".arrived"
