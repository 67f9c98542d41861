"""What the log says of a migration that was left alone: who settled it, and what became of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from pathlib import Path

from migrate.events import log
from migrate.recovery.entries import Images
from migrate.recovery.records import Record


@contextlib.contextmanager
def of_one_left(record: Record) -> Generator[None, None, None]:
    """Go on with the log of that migration meanwhile; CRIU's own logs are kept before somebody removes them."""
    with log.kept(record.migration_id, record.role) as kept:
        kept.state = record.state
        entries = [entry.kind for entry in record.entries]
        log.tell("left alone", pid=record.pid, other_host=record.other_host, entries=entries, end=record.end)
        for images in (entry for entry in record.entries if isinstance(entry, Images)):
            log.criu_in(Path(images.path))
        if not record.end:
            kept.keep_criu_logs()
        yield


def ended(record: Record, outcome: str, problems: Sequence[str] = ()) -> None:
    """It is over: *outcome*, as a report would say it."""
    here, there = os.uname().nodename, record.other_host
    way = f"from {here} to {there}" if record.role == "origin" else f"from {there} to {here}"
    text = f"process {record.pid} {way}, left alone: {outcome}"
    pid = record.destination_pid
    log.ended(outcome, text, pid=record.pid, destination_pid=pid, problems=list(problems))
