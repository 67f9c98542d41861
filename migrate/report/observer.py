"""What the user sees while a migration runs, and its report at the end.

The driver calls an :class:`Observer` while the process is frozen, so no call may wait: output goes through a
thread, and a terminal that is stopped or a pipe that nobody reads holds up nothing. A broken one is ignored;
it must not change the outcome.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

from migrate import limits, threads
from migrate.report.report import Outcome, Report
from migrate.report.text import clean, render
from migrate.units import utc

#: The version of the JSON lines: another one when a field goes or means something else, not when one is added.
SCHEMA = 1
_MAX_WAITING = 1000


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


class Output:
    """Does the writing, in a thread, in order; what is too much to keep is dropped."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="ui", daemon=True)
        threads.start(self._thread)

    def submit(self, write: Callable[[], None]) -> None:
        """Have *write* called soon; errors of writing are ignored."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(write)

    def drain(self, timeout_s: float = limits.SHOW_S) -> None:
        """Wait until all is written, but not for ever; nothing can be submitted afterwards."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (write := self._waiting.get()) is not None:
            # ValueError: the file was closed.
            with contextlib.suppress(OSError, ValueError):
                write()


class _Base:
    """What the user interfaces share: the thread."""

    def __init__(self, out: TextIO, err: TextIO, *, verbose: bool) -> None:
        self._out, self._err, self._verbose = out, err, verbose
        self._output = Output()

    def named(self, migration_id: str) -> None:
        """See :class:`Observer`: it is in the report."""

    def finished(self, report: Report) -> None:
        """See :class:`Observer`."""
        self._output.submit(lambda: self._report(report))
        self._output.drain()

    def event(self, text: str) -> None:
        """See :class:`Observer`."""
        self._say(text)

    def _report(self, report: Report) -> None:
        _write(self._out, "\n".join(render(report, verbose=self._verbose)))

    def _say(self, text: str) -> None:
        self._output.submit(lambda: _write(self._err, f"migrate: {clean(text)}"))


class PlainUi(_Base):
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


class JsonUi(_Base):
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
        line: dict[str, Any] = report.as_json()
        self._tell(**line)
        self._output.drain()

    def _tell(self, event: str, role: str = "origin", **fields: Any) -> None:
        first = {"schema": SCHEMA, "time": utc(time.time_ns()), "id": self._id, "role": role, "event": event}
        self._output.submit(lambda: _write(self._out, json.dumps(first | fields)))


class RichUi(_Base):
    """A bar with the phase under way on *err*, a terminal; the report on *out*."""

    def __init__(self, out: TextIO, err: TextIO, *, verbose: bool) -> None:
        super().__init__(out, err, verbose=verbose)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
        # Drawn by rich's own thread a few times a second: an update costs the driver microseconds.
        self._bar = Progress(
            *columns,
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=Console(file=err),
            transient=True,
            refresh_per_second=8,
        )
        self._task = self._bar.add_task("", total=None)
        self._output.submit(self._bar.start)

    def phase_begin(self, name: str, role: str) -> None:
        """See :class:`Observer`."""
        self._bar.update(self._task, description=f"{role}: {name}")

    def phase_end(self, name: str) -> None:
        """See :class:`Observer`: the durations are in the report."""

    def progress(self, bytes_sent: int, bytes_total: int | None) -> None:
        """See :class:`Observer`."""
        self._bar.update(self._task, completed=bytes_sent, total=bytes_total)

    def event(self, text: str) -> None:
        """See :class:`Observer`."""
        self.note(text)

    def note(self, text: str) -> None:
        """See :class:`Observer`."""
        self._output.submit(lambda: self._bar.console.print(clean(text), markup=False, highlight=False))

    def _report(self, report: Report) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._bar.stop()
        head, *rest = render(report, verbose=self._verbose)
        colour = {Outcome.MOVED: "32", Outcome.IN_DOUBT: "31"}.get(report.outcome, "33")
        if report.error is None:
            colour = "32"
        head = f"\x1b[1;{colour}m{head}\x1b[0m" if self._out.isatty() and _colours() else head
        _write(self._out, "\n".join([head, *rest]))


def choose(out: TextIO, err: TextIO, *, json_lines: bool, verbose: bool) -> Observer:
    """Return the user interface that fits: JSON lines if asked for, a bar if *err* is a terminal."""
    if json_lines:
        return JsonUi(out, err, verbose=verbose)
    return (RichUi if err.isatty() else PlainUi)(out, err, verbose=verbose)


def _colours() -> bool:
    """Whether the user wants any; rich asks the same for the bar. Source: https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _write(file: TextIO, line: str) -> None:
    file.write(line + "\n")
    file.flush()
