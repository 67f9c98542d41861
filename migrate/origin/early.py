"""How a migration ends if it fails: before there is a journal here only the destination has something to undo.

After that see :mod:`migrate.origin.ending`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from migrate import limits
from migrate.errors import MigrateError
from migrate.link.link import Link
from migrate.machine import Machine
from migrate.origin.other_side import OtherSide
from migrate.report.report import Report


class OnFailure(Protocol):
    """What is done about a failure."""

    def failed(self, error: BaseException) -> None:
        """A step failed with *error*. The report says how it ended."""


class EarlyEnding:
    """Nothing was done on this host that anybody would have to undo.

    :param let_go: gives back what the driver itself holds of the tree.
    """

    def __init__(self, report: Report, link: Link, machine: Machine, let_go: Callable[[], None]) -> None:
        self._report, self._link, self._machine, self._let_go = report, link, machine, let_go

    def failed(self, error: BaseException) -> None:
        """See :class:`OnFailure`."""
        other = OtherSide(self._link, self._report)
        self._report.fail(error)
        if isinstance(error, MigrateError):
            other.not_undone(error.left)
        self._report.outcome = self._machine.failed()
        told = other.tell_abort()
        self._let_go()
        if told:
            other.hear_aborted(limits.UNDO_S)


class Ends:
    """How it ends if it fails now.

    :param first: until :meth:`from_now_on`.
    """

    def __init__(self, first: OnFailure) -> None:
        self._now = first

    def from_now_on(self, ending: OnFailure) -> None:
        """There is more to be undone."""
        self._now = ending

    def failed(self, error: BaseException) -> None:
        """See :class:`OnFailure`."""
        self._now.failed(error)
