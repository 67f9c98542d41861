"""What is kept under /run/migrate is not what it should be: that one is damaged, and no other is held up by it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from migrate import place
from migrate.errors import MigrateError
from migrate.journal import journal, stored
from migrate.journal.journal import Journal
from migrate.pb import session_pb2 as pb
from migrate.processes import identity
from migrate.recovery import arrived, records, settle, whereabouts

ID, OTHER = "0123456789ab", "ba9876543210"
Spoil = Callable[[Path], object]


def too_long(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(stored.MOST_BYTES + 1)


def linked(path: Path) -> None:
    (path.parent / "elsewhere").write_text("")
    path.symlink_to(path.parent / "elsewhere")


SPOILT: dict[str, Spoil] = {
    "directory": Path.mkdir,
    "FIFO": os.mkfifo,
    "link": linked,
    "too long": too_long,
    "noise": lambda path: path.write_bytes(bytes(range(256)) + b"\n"),
}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the journals are, private as on a host."""
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")
    stored.make()
    return place.STATE


@pytest.mark.parametrize("name", SPOILT)
def test_a_journal(name: str, state: Path) -> None:
    """One that is in order lies beside it, and is settled."""
    home = state / ID
    home.mkdir()
    SPOILT[name](home / "journal")
    Journal(OTHER, role="origin", pid=os.getpid(), other_host="there").abandon()
    with pytest.raises(MigrateError, match="is damaged"):
        records.read(home)
    (settled,) = settle.sweep(lambda note: None)
    assert settled.record.migration_id == ID
    assert "is damaged" in settled.problems[0] and str(home) in settled.problems[0]
    assert [*journal.all_of_this_host()] == [home]
    assert whereabouts.find(ID, 0.0).where == pb.Answer.UNDER_WAY


@pytest.mark.parametrize("name", SPOILT)
def test_a_lock(name: str, state: Path) -> None:
    """It is nobody's to settle where the lock cannot be had, and holds up no other."""
    made = Journal(ID, role="origin", pid=1, other_host="there")
    made.abandon()
    (made.directory / "lock").unlink()
    SPOILT[name](made.directory / "lock")
    Journal(OTHER, role="origin", pid=os.getpid(), other_host="there").abandon()
    settle.sweep(lambda note: None)
    assert OTHER not in [one.name for one in journal.all_of_this_host()]


@pytest.mark.parametrize("name", SPOILT)
def test_one_that_came_here(name: str, state: Path) -> None:
    (state / ".arrived").mkdir()
    SPOILT[name](state / ".arrived" / ID)
    me = identity.identity(os.getpid())
    (state / ".arrived" / OTHER).write_text(f"{me[0]} {me[1]}\n")
    assert arrived.all_of_this_host() == [ID, OTHER]
    assert whereabouts.find(ID, 0.0).where == pb.Answer.UNDER_WAY
    assert whereabouts.find(OTHER, 0.0).where == pb.Answer.RUNS


def someone_elses(path: Path) -> None:
    path.mkdir()
    os.chown(path, 1000, -1)


def for_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("spoil", [someone_elses, for_all, linked, Path.touch], ids=lambda one: one.__name__)
def test_the_directory_of_all(spoil: Spoil, state: Path) -> None:
    state.rmdir()
    spoil(state)
    with pytest.raises(stored.NotOurs, match=str(state)):
        Journal(ID, role="origin", pid=1, other_host="there")
    with pytest.raises(stored.NotOurs):
        [*journal.all_of_this_host()]
