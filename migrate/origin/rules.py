"""What the origin says, waits for and journals is looked at against the row of the table under way."""

from __future__ import annotations

from migrate.events import log
from migrate.journal.entry import Entry
from migrate.machine import Machine


class Rules:
    """For the link of one migration, see :class:`migrate.link.link.Rules`, and for its journal.

    Who does what its row has not is refused in tests, and told in the log elsewhere.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def saying(self, kind: str) -> None:
        """A message is about to be sent."""
        row = self._machine.row
        if not row.may_say(kind):
            log.unexpected(f"sent in the step {row.step.action}: {kind}")

    def awaiting(self, kind: str) -> None:
        """An answer is waited for."""
        row = self._machine.row
        if not row.may_wait(kind):
            log.unexpected(f"waited for in the step {row.step.action}: {kind}")

    def may_write(self, kind: type[Entry]) -> bool:
        """Whether an entry of *kind* may be written now."""
        return self._machine.row.may_write(kind)
