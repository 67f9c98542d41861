"""Where nothing can be written or made, as a real kernel says it: and then it cannot."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.inventory import compared
from migrate.pb.session_pb2 import File


def run(*words: str) -> None:
    subprocess.run(words, check=True)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 10 inodes."""
    run("mount", "-t", "tmpfs", "-o", "nr_inodes=10", "none", str(tmp_path))
    yield tmp_path
    run("umount", str(tmp_path))


def asked(path: Path, use: File.Use = File.OPEN) -> File:
    (found,) = compared.there([File(path=str(path), use=use)])
    return found


def test_a_read_only_mount(place: Path) -> None:
    (place / "file").write_text("x")
    assert asked(place / "file").read_only == ""
    run("mount", "-o", "remount,ro", str(place))
    for path in (place / "file", place / "missing" / "below"):
        assert asked(path).read_only == str(place)
    with pytest.raises(OSError) as raised:
        (place / "file").open("r+")
    assert raised.value.errno == errno.EROFS


def test_a_mount_that_is_read_only_by_itself(place: Path) -> None:
    """The same file system is mounted twice."""
    (place / "above").mkdir()
    run("mount", "--bind", str(place), str(place / "above"))
    run("mount", "-o", "remount,bind,ro", str(place / "above"))
    assert asked(place / "above" / "x").read_only == str(place / "above")
    assert asked(place / "x").read_only == ""
    run("umount", str(place / "above"))


@pytest.mark.parametrize(("letter", "word"), [("i", File.IMMUTABLE), ("a", File.APPEND_ONLY)])
def test_attributes(place: Path, letter: str, word: File.Attribute) -> None:
    (place / "file").write_text("x")
    (place / "folder").mkdir()
    for name in ("file", "folder"):
        run("chattr", f"+{letter}", str(place / name))
    with pytest.raises(PermissionError):
        (place / "file").open("r+")
    assert list(asked(place / "file").attributes) == [word]
    assert list(asked(place / "folder", File.SOCKET_DIRECTORY).attributes) == [word]
    assert asked(place / "file").closed_directory == ""
    for use in (File.OPEN, File.DELETED, File.COPIED_TREE):
        assert asked(place / "folder" / "new", use).closed_directory == str(place / "folder")
    for name in ("file", "folder"):
        run("chattr", f"-{letter}", str(place / name))


def test_inodes(place: Path) -> None:
    free = asked(place / "new").free_files
    for number in range(free):
        (place / str(number)).touch()
    assert asked(place / "new").free_files == 0 < free
    with pytest.raises(OSError) as raised:
        (place / "new").touch()
    assert raised.value.errno == errno.ENOSPC


def test_of_a_file_that_is_open(place: Path) -> None:
    """An attribute may have been given since it was opened, which leaves the descriptor as it is."""
    from migrate.inventory import attributes

    descriptor = os.open(place / "file", os.O_RDWR | os.O_CREAT)
    run("chattr", "+i", str(place / "file"))
    assert attributes.of(f"/proc/self/fd/{descriptor}") == [File.IMMUTABLE]
    run("chattr", "-i", str(place / "file"))
    os.close(descriptor)
