"""Copies on the destination: no link is followed, all comes back with an undo, and nothing else is touched."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate import place
from migrate.errors import MigrateError
from migrate.files import beneath, copies
from migrate.files.entries import Copied
from migrate.files.taker import FileTaker
from migrate.journal import journal
from migrate.link.payloads import Piece
from migrate.recovery import records

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are set")

USER = 12345


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[journal.Journal]:
    monkeypatch.setattr(place, "STATE", tmp_path / "state")
    ours = journal.Journal(place.new_id(), role="destination", pid=1, other_host="x")
    yield ours
    ours.abandon()


@pytest.fixture
def taker(written: journal.Journal) -> FileTaker:
    return FileTaker(written)


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def undo(written: journal.Journal) -> None:
    for entry in reversed(records.read(written.directory).entries):
        entry.undo()


def tidy(written: journal.Journal) -> None:
    for entry in records.read(written.directory).of(Copied):
        entry.forget()


def piece(path: Path, data: bytes = b"new", **more: object) -> Piece:
    fields = {"mode": stat.S_IFREG | 0o640, "uid": USER, "gid": USER, "last": True}
    return Piece(name=str(path), data=data, **(fields | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("backup", ["", ".kept"])
def test_what_was_never_made_is_undone_on_a_read_only_file_system(tmp_path: Path, backup: str) -> None:
    """Of which unlink(2) says that it is read-only, also of a name that is not there."""
    words = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(tmp_path)]
    subprocess.run(words, check=True)
    try:
        Copied(str(tmp_path / "x"), str(tmp_path / backup) if backup else "").undo()
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path)], check=True)
        (tmp_path / (backup or "x")).write_text("")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            Copied(str(tmp_path / "x"), str(tmp_path / backup) if backup else "").undo()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_users_link_leads_nowhere(tmp_path: Path, taker: FileTaker) -> None:
    victim = tmp_path / "etc"
    victim.mkdir()
    (victim / "conf").write_text("root's")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "d").symlink_to(victim)
    with pytest.raises(MigrateError, match="symbolic link") as caught:
        taker.take(piece(tmp_path / "home" / "d" / "conf"))
    assert caught.value.problem.hint
    assert (victim / "conf").read_text() == "root's" and names(victim) == ["conf"]
    with pytest.raises(MigrateError, match="symbolic link"):
        taker.take(piece(tmp_path / "home" / "d" / "below" / "conf"))
    assert names(victim) == ["conf"]


def test_a_link_in_the_files_place_is_replaced_and_not_followed(
    tmp_path: Path, taker: FileTaker, written: journal.Journal
) -> None:
    (tmp_path / "target").write_text("root's")
    (tmp_path / "name").symlink_to(tmp_path / "target")
    taker.take(piece(tmp_path / "name"))
    assert (tmp_path / "name").read_text() == "new" and (tmp_path / "target").read_text() == "root's"
    undo(written)
    assert (tmp_path / "name").readlink() == tmp_path / "target"


def test_an_undo_follows_no_link_that_was_made_since(
    tmp_path: Path, taker: FileTaker, written: journal.Journal
) -> None:
    home, etc = tmp_path / "home", tmp_path / "etc"
    home.mkdir()
    etc.mkdir()
    (home / "conf").write_text("old")
    (etc / "conf").write_text("root's")
    taker.take(piece(home / "conf"))
    home.rename(tmp_path / "moved")
    home.symlink_to(etc)
    with pytest.raises(MigrateError, match="symbolic link"):
        undo(written)
    home.unlink()
    etc.rename(home)  # another directory in its place is no better
    with pytest.raises(MigrateError, match="another directory"):
        undo(written)
    assert (home / "conf").read_text() == "root's"


def test_names_in_a_users_directory_are_touched_as_that_user(tmp_path: Path, taker: FileTaker) -> None:
    """Into a directory that its owner cannot write to, nothing is written for him."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, USER, USER)
    taker.take(piece(home / "one", uid=0, gid=0))
    assert (home / "one").stat().st_uid == 0
    home.chmod(0o500)
    with pytest.raises(MigrateError, match="Permission denied"):
        taker.take(piece(home / "two"))
    assert names(home) == ["one"]


def test_rights_are_roots_again_afterwards(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, USER, USER)
    with beneath.directory(home) as folder, beneath.acting_as_owner(folder):
        os.close(os.open("his", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
    (tmp_path / "roots").touch()
    assert (home / "his").stat().st_uid == USER and (tmp_path / "roots").stat().st_uid == 0


def test_a_program_with_its_owners_rights_is_not_made(tmp_path: Path, taker: FileTaker) -> None:
    with pytest.raises(MigrateError, match="runs as its owner"):
        taker.take(piece(tmp_path / "su", mode=stat.S_IFREG | 0o4755, uid=0))
    assert not (tmp_path / "su").exists()


def test_all_that_belongs_to_a_file_is_as_before(
    tmp_path: Path, taker: FileTaker, written: journal.Journal
) -> None:
    source, there = tmp_path / "source", tmp_path / "there" / "deep" / "er"
    source.write_bytes(b"x" * 300_000)
    os.chown(source, USER, USER + 1)
    source.chmod(0o460)
    os.setxattr(source, "user.mime", b"text")
    os.utime(source, ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))

    def send(chunk: Piece) -> None:
        assert chunk.name == str(source)
        chunk.name = str(there)
        taker.take(chunk)

    assert copies.send_file(str(source), send) == 300_000
    before, after = source.stat(), there.stat()
    assert there.read_bytes() == source.read_bytes() and os.getxattr(there, "user.mime") == b"text"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, USER, USER + 1)
    assert after.st_mtime_ns == 1_500_000_000_987_654_321
    undo(written)
    assert not (tmp_path / "there").exists()


def test_a_file_copied_twice_has_its_first_self_back(
    tmp_path: Path, taker: FileTaker, written: journal.Journal
) -> None:
    (tmp_path / "a").write_text("old")
    taker.take(piece(tmp_path / "a", b"first"))
    taker.take(piece(tmp_path / "a", b"second"))
    assert (tmp_path / "a").read_text() == "second"
    undo(written)
    undo(written)
    assert (tmp_path / "a").read_text() == "old" and not list(tmp_path.glob("a.*"))


def test_a_tree_takes_the_place_of_another(
    tmp_path: Path, taker: FileTaker, written: journal.Journal
) -> None:
    tree = tmp_path / "tree"
    (tree / "old").mkdir(parents=True)
    (tree / "old" / "stale").write_text("stale")
    taker.take(Piece(name=str(tree), removed=True))
    taker.take(piece(tree / "new" / "file"))
    taker.take(piece(tree / "gone"))
    taker.take(Piece(name=str(tree / "gone"), removed=True))
    assert names(tree) == ["new"]
    undo(written)
    assert (tree / "old" / "stale").read_text() == "stale" and names(tree) == ["old"]


def users_home_with_a_tree_of_roots(tmp_path: Path) -> tuple[Path, Path]:
    """A user's directory, and in it one of root's with something in it."""
    home = tmp_path / "home"
    (home / "tree" / "below").mkdir(parents=True)
    (home / "tree" / "log").write_text("old")
    (home / "tree" / "below" / "file").write_text("old")
    os.chown(home, USER, USER)
    return home, home / "tree"


def test_a_tree_of_roots_in_a_users_directory_is_replaced(
    tmp_path: Path, taker: FileTaker, written: journal.Journal
) -> None:
    """What is in it is root's to remove, and its name the user's."""
    home, tree = users_home_with_a_tree_of_roots(tmp_path)
    taker.take(Piece(name=str(tree), removed=True))
    taker.take(piece(tree / "log", uid=0, gid=0))
    tidy(written)
    assert names(home) == ["tree"] and names(tree) == ["log"]


def test_another_tree_of_roots_in_its_place_is_left_alone(
    tmp_path: Path, taker: FileTaker, written: journal.Journal
) -> None:
    """The user gives it the name that the replaced one has; what cannot be removed is named, and why."""
    home, tree = users_home_with_a_tree_of_roots(tmp_path)
    (home / "other").mkdir()
    (home / "other" / "precious").write_text("root's")
    taker.take(Piece(name=str(tree), removed=True))
    [kept] = [one for one in home.iterdir() if one.name.startswith(".migrate-")]
    kept.rename(home / "moved")
    (home / "other").rename(kept)
    with pytest.raises(MigrateError, match=rf"precious in it .* another user's.* rm -r {kept}"):
        tidy(written)
    assert (kept / "precious").exists() and (home / "moved" / "log").exists()


def test_nothing_is_left_of_what_was_replaced(
    tmp_path: Path, taker: FileTaker, written: journal.Journal
) -> None:
    tree = tmp_path / "tree"
    (tree / "old").mkdir(parents=True)
    (tree / "old" / "link").symlink_to("/etc")
    (tmp_path / "a").write_text("old")
    taker.take(Piece(name=str(tree), removed=True))
    taker.take(piece(tree / "file"))
    taker.take(piece(tmp_path / "a"))
    tidy(written)
    assert names(tmp_path) == ["a", "state", "tree"] and names(tree) == ["file"]
    assert Path("/etc/passwd").exists()
