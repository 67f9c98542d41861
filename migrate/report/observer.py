"""What the user sees while a migration runs, and its report at the end.

The driver calls an :class:`Observer` while the process is frozen, so no call may wait; how they do not says
:mod:`migrate.report.output`.
"""

from __future__ import annotations

import json
import time
from typing import Any, Protocol, TextIO

from migrate.report.output import Base, write
from migrate.report.report import Report
from migrate.units import utc

#: The version of the JSON lines: another one when a field goes or means something else, not when one is added.
SCHEMA = 1


class Observer(Protocol):
    """Is told what happens. No method waits or raises, except finished(), which waits for its output."""

    def named(self, migration_id: str) -> None:
        """What the migration is called, on both hosts; told first of all, where there is one."""

    def phase_begin(self, name: str, role: str) -> None:
        """The phase *name* begins on the host *role*."""

    def phase_end(self, name: str) -> None:
        """It has ended, well or badly."""

    def progress(self, bytes_sent: int, bytes_total: int | None) -> None:
        """So many bytes of images have been sent, or of files been read, of a total if that is known."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def event(self, text: str) -> None:
        """Something of the log, for whoever wants to see it as it comes (-v)."""

    def finished(self, report: Report) -> None:
        """It is over. Called once, by the command itself."""


class PlainUi(Base):
    """A line for each phase on *err*, the report on *out*."""

    def phase_begin(self, name: str, role: str) -> None:
        """See :class:`Observer`."""
        self._say(f"{role}: {name}")

    def phase_end(self, name: str) -> None:
        """See :class:`Observer`: the durations are in the report."""

    def progress(self, bytes_sent: int, bytes_total: int | None) -> None:
        """See :class:`Observer`: not shown."""

    def note(self, text: str) -> None:
        """See :class:`Observer`."""
        self._say(text)


class JsonUi(Base):
    """JSON lines on *out*, the last one the report; docs/json.md has their fields.

    Each has its time: when it was told, not when it could be written.
    """

    def __init__(self, out: TextIO, err: TextIO, *, verbose: bool) -> None:
        super().__init__(out, err, verbose=verbose)
        self._id = ""

    def named(self, migration_id: str) -> None:
        """See :class:`Observer`."""
        self._id = migration_id

    def phase_begin(self, name: str, role: str) -> None:
        """See :class:`Observer`."""
        self._tell("phase", role=role, name=name, state="begin")

    def phase_end(self, name: str) -> None:
        """See :class:`Observer`."""
        self._tell("phase", name=name, state="end")

    def progress(self, bytes_sent: int, bytes_total: int | None) -> None:
        """See :class:`Observer`."""
        self._tell("progress", bytes_sent=bytes_sent, bytes_total=bytes_total)

    def note(self, text: str) -> None:
        """See :class:`Observer`."""
        self._tell("note", text=text)

    def finished(self, report: Report) -> None:
        """See :class:`Observer`."""
        fields: dict[str, Any] = report.as_json()
        self._tell(**fields)
        self._output.drain()

    def _tell(self, event: str, role: str = "origin", **fields: Any) -> None:
        text = line(event, role, self._id, **fields)
        self._output.submit(lambda: write(self._out, text))


def line(event: str, role: str = "origin", migration_id: str = "", **fields: Any) -> str:
    """One of the JSON lines, told now."""
    first = {"schema": SCHEMA, "time": utc(time.time_ns()), "id": migration_id, "role": role, "event": event}
    return json.dumps(first | fields)


def choose(out: TextIO, err: TextIO, *, json_lines: bool, verbose: bool) -> Observer:
    """Return the user interface that fits: JSON lines if asked for, a bar if *err* is a terminal."""
    if json_lines:
        return JsonUi(out, err, verbose=verbose)
    if not err.isatty():
        return PlainUi(out, err, verbose=verbose)
    from migrate.report.bar import RichUi  # rich takes a tenth of the start, and draws for people alone

    return RichUi(out, err, verbose=verbose)
