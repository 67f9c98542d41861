"""``--copy-tree`` from one directory to another of this machine: what changes after the first look arrives, too."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate import place
from migrate.files.content import Digests
from migrate.files.taker import FileTaker
from migrate.files.trees import Tree
from migrate.journal import journal
from migrate.pb.session_pb2 import FileChunk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are set")


class Copy:
    """A tree, and its copy: what is sent is taken at once, elsewhere."""

    def __init__(self, tmp_path: Path, ours: journal.Journal) -> None:
        self.here, self.there = tmp_path / "here", tmp_path / "there"
        self.here.mkdir()
        self.tree = Tree(str(self.here), Digests())
        self._taker = FileTaker(ours)

    def send(self, chunk: FileChunk) -> None:
        """As over the link."""
        taken = FileChunk.FromString(chunk.SerializeToString())
        taken.name = taken.name.replace(str(self.here), str(self.there))
        self._taker.take(taken)

    def begin(self) -> None:
        """Copy it all."""
        self.tree.copy(self.send)

    def settle(self) -> None:
        """What changed since; then both are the same."""
        self.tree.copy_changed(self.send, ())
        assert look(self.there) == look(self.here)


def look(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Name -> mode, owner and content, without what is kept for the way back."""
    found = {}
    for one in (top, *sorted(top.rglob("*"))):
        status = one.lstat()
        data = one.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        if ".migrate-" not in str(one):
            found[str(one.relative_to(top))] = status.st_mode, status.st_uid, data
    return found


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Copy]:
    monkeypatch.setattr(place, "STATE", tmp_path / "state")
    ours = journal.Journal(place.new_id(), role="destination", pid=1, other_host="x")
    yield Copy(tmp_path, ours)
    ours.abandon()


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("where", [".", "sub", "sub/deep"])
def test_a_directory_that_gets_another_mode_keeps_what_is_in_it(
    copy: Copy, where: str, existed: bool
) -> None:
    (copy.here / "sub/deep").mkdir(parents=True)
    (copy.here / "sub/one").write_text("1")
    (copy.here / "sub/deep/two").write_text("2")
    if existed:
        (copy.there / "sub").mkdir(parents=True)
        (copy.there / "sub/its").write_text("not ours")
    copy.begin()
    (copy.here / where).chmod(0o711)
    os.chown(copy.here / where, 12345, 12345)
    copy.settle()


def test_what_becomes_of_another_kind(copy: Copy) -> None:
    (copy.here / "sub").mkdir()
    (copy.here / "sub/one").write_text("1")
    (copy.here / "file").write_text("f")
    (copy.here / "link").symlink_to("file")
    copy.begin()
    (copy.here / "sub/one").unlink()
    (copy.here / "sub").rmdir()
    (copy.here / "sub").write_text("now a file")
    (copy.here / "file").unlink()
    (copy.here / "file").mkdir()
    (copy.here / "file/in").write_text("it")
    (copy.here / "link").unlink()
    (copy.here / "link").symlink_to("elsewhere")
    copy.settle()


def test_a_directory_that_somebody_put_in_the_place_of_ours_is_left_as_it_is(copy: Copy) -> None:
    (copy.here / "sub").mkdir()
    copy.begin()
    (copy.there / "sub").rename(copy.there / "ours")
    (copy.there / "sub").mkdir(mode=0o700)
    (copy.here / "sub").chmod(0o777)
    copy.tree.copy_changed(copy.send, ())
    assert stat.S_IMODE((copy.there / "sub").stat().st_mode) == 0o700
