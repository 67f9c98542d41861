"""What a person sees while a migration runs: a bar with the phase under way."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

from migrate.report.output import Base, write
from migrate.report.report import Outcome, Report
from migrate.report.text import clean, render


class RichUi(Base):
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
        write(self._out, "\n".join([head, *rest]))


def _colours() -> bool:
    """Whether the user wants any; rich asks the same for the bar. Source: https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
