"""A journal as it is read back: by its owner, by who undoes it, by who asks what became of a migration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from migrate import place
from migrate.errors import MigrateError
from migrate.journal import lines, stored
from migrate.journal.entry import Entry, Unreadable
from migrate.journal.journal import Journal
from migrate.processes import identity
from migrate.recovery.entries import KINDS, Joined, words

_BY_WORD: Mapping[str, type[Entry]] = {kind.word: kind for kind in KINDS}

E = TypeVar("E", bound=Entry)


@dataclass(slots=True)
class Record:
    """What a journal says.

    :ivar role: ``"origin"`` or ``"destination"``.
    :ivar pid: the process as the origin numbers it.
    :ivar entries: what was about to be done, oldest first.
    :ivar state: the last state, or "".
    :ivar destination_pid: the process as the destination numbers it, once that is known, else 0.
    :ivar end: the outcome, or "" while it is open.
    :ivar owner: the driver or agent that wrote it, None if that is not known.
    :ivar network: path of the network namespace in which it was done, "": this host's.
    :ivar reach: on the origin: how the other host was reached, see :class:`migrate.journal.reach.Reach`.
    """

    migration_id: str
    role: str = ""
    pid: int = 0
    other_host: str = ""
    entries: list[Entry] = field(default_factory=list)
    state: str = ""
    destination_pid: int = 0
    end: str = ""
    owner: identity.Identity | None = None
    reach: dict[str, Any] = field(default_factory=dict)
    network: str = ""

    def of(self, kind: type[E]) -> list[E]:
        """The entries of *kind*, oldest first, for who relies on what they say.

        :raises MigrateError: one of them cannot be read.
        """
        for entry in self.named(kind):
            if isinstance(entry, Unreadable):
                hint = (
                    f"Look at {place.STATE / self.migration_id}, undo by hand what it names, then remove it."
                )
                raise MigrateError(f"what was noted as {entry.kind} cannot be read: {entry.why}", hint=hint)
        return [entry for entry in self.entries if isinstance(entry, kind)]

    def named(self, *kinds: type[Entry]) -> list[Entry]:
        """The entries of these kinds, oldest first, to be undone each for itself: also what cannot be read."""
        return [entry for entry in self.entries if entry.kind in words(kinds)]

    def but(self, *kinds: type[Entry]) -> list[Entry]:
        """All others, likewise."""
        return [entry for entry in self.entries if entry.kind not in words(kinds)]


def of(journal: Journal) -> Record:
    """What *journal*, which is ours, says, also where its path does not lead to it any more.

    :raises MigrateError: as :func:`read`.
    """
    journal.keep()
    return parse(journal.read(), journal.migration_id)


def read(directory: Path) -> Record:
    """Read the journal of *directory*.

    :raises FileNotFoundError: there is none (any more).
    :raises MigrateError: it is damaged, or was written by another version.
    """
    return parse(stored.read(directory / "journal"), directory.name)


def parse(data: bytes, migration_id: str) -> Record:
    """What a journal says; a last line that is cut is left out.

    :raises MigrateError: as :func:`read`.
    """
    record = Record(migration_id)
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            _add(record, lines.parse(line))
        except ValueError as error:
            raise MigrateError(
                f"the journal of migration {migration_id} is damaged in line {number}: {error}",
                hint=f"Undo by hand what {place.STATE / migration_id} names, then remove that directory.",
            ) from error
    return record


def _add(record: Record, line: dict[str, Any]) -> None:
    if "did" in line:
        record.entries.append(_entry(line))
        if isinstance(entry := record.entries[-1], Joined):
            record.network = entry.path
    elif "state" in line:
        record.state = line["state"]
        record.destination_pid = line.get("destination_pid") or record.destination_pid
    elif "end" in line:
        record.end = line["end"]
    else:
        record.role, record.pid, record.other_host = line["role"], line["pid"], line["other_host"]
        record.reach = line.get("reach", {})
        record.owner = lines.owner(line)
        record.network = line.get("network", "")


def _entry(line: dict[str, Any]) -> Entry:
    """The entry of *line*. What is wrong with it is told when somebody undoes it, or relies on it."""
    word = line["did"]
    if word not in _BY_WORD:
        return Unreadable(word, "there is none of that name")
    try:
        return _BY_WORD[word].read(line)
    except ValueError as error:
        return Unreadable(word, str(error))
