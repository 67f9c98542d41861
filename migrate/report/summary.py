"""How it ended for each of several processes, as a table and as JSON; and the exit status of all. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from migrate.errors import Exit
from migrate.report.report import Outcome, Report
from migrate.report.text import clean

#: From what is as it was wanted to what needs a person.
_WORSE = (Exit.MOVED, Exit.UNTOUCHED, Exit.ROLLED_BACK, Exit.ENDED, Exit.IN_DOUBT, Exit.BUG)
_NOT_BEGUN = "not begun"


@dataclass(frozen=True, slots=True)
class Line:
    """One of them.

    :ivar word: as it was named. :ivar pid: 0 where it was not found.
    :ivar report: how it ended; None where it was not begun, since another one had ended otherwise or somebody has
        stopped it. Of a check: how that ended.
    """

    word: str
    pid: int
    program: str
    report: Report | None

    @property
    def status(self) -> Exit:
        """As of one alone; what was not begun is untouched."""
        return Exit.UNTOUCHED if self.report is None else self.report.exit_status

    @property
    def outcome(self) -> str:
        """In a word."""
        if self.report is None:
            return _NOT_BEGUN
        passed = self.report.outcome is Outcome.UNTOUCHED and self.report.error is None
        return "READY" if passed else self.report.outcome.value


def exit_status(lines: Sequence[Line]) -> Exit:
    """The worst of them."""
    return max((one.status for one in lines), key=_WORSE.index)


def table(lines: Sequence[Line]) -> list[str]:
    """It as text."""
    rows = [("PID", "PROGRAM", "OUTCOME", ""), *(_row(one) for one in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        clean(
            "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]))
        ).rstrip()
        for row in rows
    ]


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """The fields of the last line of ``--json``."""
    return {
        "event": "summary",
        "exit_status": int(exit_status(lines)),
        "processes": [
            {
                "named": one.word,
                "pid": one.pid,
                "program": one.program,
                "outcome": one.outcome,
                "exit_status": int(one.status),
                "id": one.report.trace.id if one.report else "",
                "where": one.report.where if one.report else "",
            }
            for one in lines
        ],
    }


def _row(one: Line) -> tuple[str, str, str, str]:
    pid = str(one.pid) if one.pid else one.word
    if one.report is None:
        return pid, one.program, one.outcome, ""
    error = one.report.error
    return pid, one.program, one.outcome, one.report.where if error is None else _why(one.report)


def _why(report: Report) -> str:
    if report.reasons:
        return report.reasons[0].text
    return report.error.text if report.error is not None else ""
