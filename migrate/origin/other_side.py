"""The destination, when a migration has failed: it is told, and says what it has undone."""

from __future__ import annotations

from collections.abc import Iterable

from migrate.errors import MigrateError
from migrate.events import line
from migrate.link import failure
from migrate.link.link import Link
from migrate.pb import session_pb2 as pb
from migrate.report.report import Report


class OtherSide:
    """That of one migration; what it could not undo is noted in *report*."""

    def __init__(self, link: Link, report: Report) -> None:
        self._link, self._report = link, report

    def tell_abort(self) -> bool:
        """Tell it to undo; whether the link lived."""
        try:
            error = self._report.error
            reason = failure.sendable(error.text if error is not None else "the origin rolls back")
            self._link.send(pb.Abort(reason=reason[: line.MOST_TEXT], outcome=self._report.outcome.value))
        except MigrateError:
            return False
        return True

    def hear_aborted(self, timeout_s: float) -> pb.Aborted | None:
        """What it says when it has undone everything; None: it does not say so."""
        try:
            aborted = self._link.expect(pb.Aborted, timeout_s=timeout_s, discard=True)
        except MigrateError:
            return None
        self.not_undone(aborted.problems)
        return aborted

    def not_undone(self, problems: Iterable[str]) -> None:
        """It has said that these are left."""
        self._report.notes += [f"not undone on {self._report.host}: {problem}" for problem in problems]
