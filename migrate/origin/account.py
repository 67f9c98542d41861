"""Where what happens is told: to the user while it happens, to the clock, and to the report for the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from migrate import problems
from migrate.events import log
from migrate.report.observer import Observer
from migrate.report.report import Report
from migrate.report.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Account:
    """That of one migration.

    :ivar foreseen: what will be different for the process where it goes; see :meth:`came_true`.
    """

    report: Report
    observer: Observer
    timeline: Timeline
    foreseen: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A ``with`` block that is the phase *name*; one that fails ends for the clock, and is not done."""
        self.observer.phase_begin(name, "origin")
        with self.timeline.phase(name), log.phase(name), problems.step(name, "origin"):
            yield
        self.observer.phase_end(name)

    def note(self, text: str) -> None:
        """Something worth a line."""
        self.observer.note(text)
        log.tell("note", text=text)

    def came_true(self) -> None:
        """It was moved, perhaps, or would be: what was foreseen is a note of the report, before the others."""
        self.report.notes[:0] = self.foreseen
        self.foreseen.clear()

    def fail(self, error: BaseException) -> None:
        """Record *error*, see :meth:`migrate.report.report.Report.fail`."""
        log.error(error)
        self.report.fail(error)
