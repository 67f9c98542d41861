"""The end of a journal on the origin: all is cleaned up, or left to ``--recover``; what runs where is settled."""

from __future__ import annotations

from collections.abc import Callable

from migrate.errors import MigrateError
from migrate.events import log
from migrate.journal.journal import Journal
from migrate.problems import of as told_of
from migrate.recovery import records, settle
from migrate.recovery.guardian import Guardian
from migrate.recovery.records import Record


def clean_up(journal: Journal, how: Callable[[Record], list[str]], outcome: str) -> list[str]:
    """Clean up by *how* and note the end in *journal*, or what could not be done beside it, and let go of it.

    :return: what could not be done, whatever the reason: no memory or disk left, for example.
    """
    try:
        left = how(records.of(journal))
        if not left:
            journal.end(outcome)
    except Exception as error:
        log.error(error)
        left = [told_of(error).text]
    if left:
        settle.note_problems(journal.directory, left)
        journal.abandon()
    return left


def somebody_reminds(guardian: Guardian, journal: Journal) -> bool:
    """Whether a guardian is there that announces the addresses, and removes *journal*.

    :param guardian: ours; if it was killed, another one is started.
    """
    if guardian.lives():
        return True
    try:
        Guardian(journal.directory).wait_ready()
    except (MigrateError, OSError):
        return False
    return True
