"""Who has a file open on the destination that is copied there is asked before it is replaced, and after it was."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate import place
from migrate.errors import Taken
from migrate.files import beneath, leases, opened
from migrate.files.taker import FileTaker
from migrate.journal import journal
from migrate.link.payloads import Piece
from migrate.processes import mounts, users
from migrate.recovery import records

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are set")

#: Takes a lease for writing, and says so.
LEASE = """import fcntl, os, signal, sys, time
signal.signal(signal.SIGIO, lambda *_: sys.exit(7))
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK); print(); sys.stdout.flush()
time.sleep(1000)
"""


@pytest.fixture
def taker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileTaker]:
    monkeypatch.setattr(place, "STATE", tmp_path / "state")
    ours = journal.Journal(place.new_id(), role="destination", pid=1, other_host="x")
    (tmp_path / "there").mkdir()
    yield FileTaker(ours)
    ours.abandon()


def undo() -> None:
    (written,) = place.STATE.iterdir()
    for entry in reversed(records.read(written).entries):
        entry.undo()


def piece(path: Path, **more: object) -> Piece:
    return Piece(name=str(path), **({"data": b"new", "mode": stat.S_IFREG | 0o640, "last": True} | more))  # type: ignore[arg-type]


def unwritten(path: Path) -> None:
    with beneath.directory(path.parent) as folder:
        opened.require_unwritten(path.name, folder, path, leases.held())


def test_who_has_leases_is_not_read_for_each_file(
    tmp_path: Path, taker: FileTaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes 10 ms: once for what arrives, and once when all has, which is in the gap."""
    read: list[frozenset[str]] = []
    held = leases.held

    def noted() -> frozenset[str]:
        read.append(held())
        return read[-1]

    monkeypatch.setattr(leases, "held", noted)
    for number in range(3):
        path = tmp_path / "there" / str(number)
        path.write_text("old")
        taker.take(piece(path))
    taker.require_unwritten()
    assert len(read) == 2


def test_a_file_that_somebody_writes_is_not_replaced(tmp_path: Path, taker: FileTaker) -> None:
    path = tmp_path / "there" / "data"
    path.write_text("theirs")
    with path.open("a") as file:
        for chunk in (piece(path), piece(path, data=b"", mode=0, removed=True)):
            with pytest.raises(
                Taken, match=rf"{path} is copied there, and .* \(PID {os.getpid()}\) has opened it"
            ):
                taker.take(chunk)
            file.write("!")
            file.flush()
        taker.close()
        undo()
    assert path.read_text() == "theirs!!" and [one.name for one in path.parent.iterdir()] == ["data"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_file_that_was_opened_as_it_was_replaced(tmp_path: Path, taker: FileTaker, kept: bool) -> None:
    """The very file comes back, with what was written to it."""
    path = tmp_path / "there" / "data"
    path.write_text("theirs")
    taker.take(piece(path))
    taker.require_unwritten()
    (old,) = path.parent.glob(".migrate-*")
    with (old if kept else path).open("a") as file:
        with pytest.raises(Taken, match="since the check"):
            taker.require_unwritten()
        undo()
        file.write("!")
    assert path.read_text() == ("theirs!" if kept else "theirs")


def test_a_tree_that_is_used_is_not_put_aside(tmp_path: Path, taker: FileTaker) -> None:
    tree = tmp_path / "there"
    (tree / "sub").mkdir()
    child = subprocess.Popen(["sleep", "1000"], cwd=tree / "sub")
    try:
        with pytest.raises(Taken, match=rf"{tree} is to be replaced there, and .* \(PID {child.pid}\)"):
            taker.take(piece(tree, removed=True))
    finally:
        child.kill()
        child.wait()
    assert (tree / "sub").exists()
    taker.take(piece(tree, removed=True))
    assert not tree.exists()


def test_who_counts(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("theirs")
    key = path.stat().st_dev, path.stat().st_ino
    with path.open() as file:
        unwritten(path)
        assert users.writing(key) == []
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        unwritten(path)
    with path.open("r+") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    assert f"(PID {os.getpid()})" in users.writing(key)[0]
    with pytest.raises(Taken):
        unwritten(path)
    mapped.close()
    unwritten(path)


def test_who_has_a_lease_keeps_it(tmp_path: Path) -> None:
    """A program that has no handler would die of the signal."""
    path = tmp_path / "data"
    path.write_text("theirs")
    holder = subprocess.Popen([sys.executable, "-c", LEASE, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(Taken, match="a lease"):
            unwritten(path)
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EAGAIN])
def test_a_file_system_without_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """All processes are looked at; where the kernel says there is one, and none is found, it is somebody unseen."""
    path = tmp_path / "data"
    path.write_text("theirs")

    def asked(_: int, command: int, __: int) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(error, os.strerror(error))
        return 0

    monkeypatch.setattr(opened.fcntl, "fcntl", asked)
    with path.open("a"), pytest.raises(Taken, match=rf"\(PID {os.getpid()}\)"):
        unwritten(path)
    if error == errno.EINVAL:
        unwritten(path)
        return
    with pytest.raises(Taken, match="another PID namespace"):
        unwritten(path)
    kind = next(one.kind for one in reversed(mounts.here()) if str(path).startswith(one.place))
    monkeypatch.setattr(opened, "_ASK_A_SERVER", (kind,))
    unwritten(path)
