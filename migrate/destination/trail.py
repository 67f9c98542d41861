"""The way back: the journal of a migration on this host, its guardian, and what is closed before an undo."""

from __future__ import annotations

import contextlib

from migrate.destination.errand import Errand
from migrate.journal.journal import Journal
from migrate.once import Once
from migrate.recovery import records, undo
from migrate.recovery.guardian import Guardian
from migrate.recovery.settle import note_problems


class Trail(Once):
    """A journal that was just begun, and its guardian, which has been started and not awaited yet.

    It ends by :meth:`roll_back` or :meth:`tidy`, and then, once, by :meth:`close`.

    :param errand: says whose it is, and what may be written.
    :param pid: the root of the tree as the origin numbers it.
    :raises MigrateError, OSError: there is none; nothing is left.
    :ivar first: what is closed before anything of the journal is undone, the last first.
    """

    def __init__(self, errand: Errand, pid: int) -> None:
        self.first = contextlib.ExitStack()
        self.journal = Journal(
            errand.migration_id,
            role="destination",
            pid=pid,
            other_host=errand.origin_host,
            may=lambda kind: errand.journalled.may(kind),
            # Podman makes one of its own here, and an entry names it when it is there.
            network="" if errand.container.archive else errand.container.network,
        )
        try:
            self.guardian = Guardian(self.journal.directory)
        except BaseException:
            self.journal.remove()
            raise

    def roll_back(self) -> tuple[list[str], list[str]]:
        """Undo everything.

        :return: what was undone and what could not be, as sentences.
        """
        self.first.close()
        return undo.roll_back(records.of(self.journal))

    def tidy(self) -> list[str]:
        """Undo what a tree that runs here does not need; sentences: what could not be."""
        return undo.tidy_destination(records.of(self.journal))

    def close(self, outcome: str, problems: list[str]) -> None:
        """Forget the journal, or leave it to the guardian with what could not be done."""
        self.use_up()
        if problems:
            note_problems(self.journal.directory, problems)
            self.journal.abandon()
            return
        self.journal.end(outcome)
        self.journal.remove()
        self.guardian.wait_end()
