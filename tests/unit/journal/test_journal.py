from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from migrate import place
from migrate.column import Column
from migrate.errors import MigrateError
from migrate.events import log
from migrate.journal import journal
from migrate.journal.entry import Entry
from migrate.journal.journal import Journal
from migrate.recovery import records
from migrate.recovery.entries import Freezer, Images, Isolation, Repair, Stop

ID = "0123456789ab"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")
    return tmp_path / "migrate"


def made() -> Journal:
    return Journal(ID, role="origin", pid=42, other_host="there")


def test_what_is_written_is_read() -> None:
    written = made()
    written.did(Isolation(ID))
    written.did(Stop(((42, 7),)))
    written.state("COMMITTED", destination_pid=43)
    record = records.read(written.directory)
    assert (record.migration_id, record.role, record.pid, record.other_host) == (ID, "origin", 42, "there")
    assert record.entries == [Isolation(ID), Stop(((42, 7),))]
    assert (record.state, record.destination_pid, record.end) == ("COMMITTED", 43, "")
    assert record.named(Stop, Repair) == record.of(Stop) == record.but(Isolation) == record.entries[1:]
    written.end("MOVED")
    assert records.read(written.directory).end == "MOVED"


def test_what_the_step_under_way_has_not_is_told_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is about to be done, and will have to be undone, whatever the table says."""
    told: list[str] = []
    monkeypatch.setattr(log, "unexpected", told.append)
    column = Column[type[Entry]]([Images, Freezer])
    written = Journal(ID, role="origin", pid=42, other_host="there", may=column.may)
    written.did(Images("/a"))
    written.did(Freezer("/b"))
    assert told == []
    written.did(Images("/c"))
    written.did(Isolation(ID))
    written.did(Freezer("/d"))
    assert told == [f"journalled in another step, or order: {kind}" for kind in ("images", "isolation")]
    assert [one.kind for one in records.read(written.directory).entries] == [
        "images",
        "freezer",
        "images",
        "isolation",
        "freezer",
    ]
    written.remove()


def test_line_that_was_cut_is_ignored() -> None:
    """Its action had not begun."""
    written = made()
    written.did(Isolation(ID))
    written.did(Images("/dev/shm/x"))
    path = written.directory / "journal"
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        assert records.read(written.directory).entries == [Isolation(ID)]


def test_first_line_that_was_cut_leaves_a_journal_of_nobody() -> None:
    written = made()
    (written.directory / "journal").write_bytes(b'{"id": "01')
    record = records.read(written.directory)
    assert (record.role, record.pid, record.entries) == ("", 0, [])


def test_no_space_takes_the_half_line_back(monkeypatch: pytest.MonkeyPatch) -> None:
    written = made()
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:5]))
    with pytest.raises(OSError, match="no space"):
        written.did(Isolation(ID))
    monkeypatch.setattr(os, "write", real)
    written.end("ROLLED_BACK")
    assert records.read(written.directory).end == "ROLLED_BACK"


def test_only_one_journal_of_an_id() -> None:
    written = made()
    with pytest.raises(FileExistsError):
        made()
    written.remove()
    assert not written.directory.exists()
    made().remove()


def test_lock_is_handed_over_when_its_owner_dies() -> None:
    """The kernel does it, also after kill -9; whoever waits gets it then."""
    script = (
        "import sys; from pathlib import Path; from migrate import place; place.STATE = Path(sys.argv[1])\n"
        "from migrate.journal.journal import Journal\n"
        "from migrate.recovery.entries import Isolation\n"
        "kept = Journal(sys.argv[2], role='origin', pid=1, other_host='x')\n"
        "kept.did(Isolation('x')); print('ready', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(place.STATE), ID]
    owner = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    directory = place.home(ID)
    with journal.owned(directory) as owned:
        assert not owned
    with pytest.raises(BlockingIOError):
        journal.take_lock(directory)
    got: list[int] = []
    waiter = threading.Thread(target=lambda: got.append(journal.take_lock(directory, wait=True)))
    waiter.start()
    waiter.join(0.05)
    assert got == []
    owner.kill()
    waiter.join(5)
    assert len(got) == 1
    os.close(got[0])
    assert records.read(directory).entries == [Isolation("x")]
    owner.communicate()


def test_abandoned_journal_can_be_owned_by_others() -> None:
    written = made()
    with journal.owned(written.directory) as owned:
        assert not owned
    written.abandon()
    with journal.owned(written.directory) as owned:
        assert owned
        with journal.owned(written.directory) as twice:
            assert not twice
    journal.forget(written.directory)
    with journal.owned(written.directory) as owned:
        assert not owned
    with pytest.raises(FileNotFoundError):
        journal.take_lock(written.directory)


def test_only_directories_of_migrations_are_listed(state: Path) -> None:
    assert list(journal.all_of_this_host()) == []
    written = made()
    for other in ("probe", "0123456789abcdef", "0123456789ad"):
        (state / other).mkdir()
    (state / "probe" / "journal").touch()
    assert list(journal.all_of_this_host()) == [written.directory]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "7",
        "null",
        "[]",
        '"did"',
        "\xff",
        "[" * 100000,
        "{}",
        '{"did": []}',
        '{"did": "stop"}',
        '{"did": "stop", "tasks": 5}',
        '{"did": "freezer"}',
        '{"did": "keeper", "pid": 1}',
        '{"did": "stop", "tasks": [[1]]}',
        '{"did": "stop", "tasks": [[4294967296, 1]]}',
        '{"did": "repair", "tasks": [["1", 1]], "reuse": true}',
        '{"did": "copied", "path": "/x"}',
        '{"did": "images", "path": "a\\u0000b"}',
        '{"state": 1}',
        '{"state": "COMMITTED", "destination_pid": "x"}',
        '{"end": null}',
        '{"role": "origin", "pid": true, "other_host": "x"}',
    ],
)
def test_a_damaged_line_is_told(line: str) -> None:
    written = made()
    with (written.directory / "journal").open("a", encoding="latin-1") as file:
        file.write(line + "\n")
    with pytest.raises(MigrateError, match=f"the journal of migration {ID} is damaged in line 2"):
        records.read(written.directory)
