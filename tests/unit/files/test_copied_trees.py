"""``--copy-tree`` from one directory to another of this machine: what changes after the first look arrives, too."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate import place
from migrate.checks.obstacles import WORDS
from migrate.errors import MigrateError
from migrate.files.content import Digests
from migrate.files.entries import Copied
from migrate.files.taker import FileTaker
from migrate.files.trees import CopiedTree
from migrate.inventory import beside, compared, replaced
from migrate.journal import journal
from migrate.link import payloads
from migrate.link.payloads import Piece
from migrate.pb.session_pb2 import File, ProcessInventory, TakenName
from migrate.recovery import records

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are set")


class Copy:
    """A tree, and its copy: what is sent is taken at once, elsewhere."""

    def __init__(self, tmp_path: Path, ours: journal.Journal) -> None:
        self.here, self.there = tmp_path / "here", tmp_path / "there"
        self.here.mkdir()
        self.tree = CopiedTree(str(self.here), Digests())
        self.journal = ours
        self._taker = FileTaker(ours)

    def send(self, chunk: Piece) -> None:
        """As over the link."""
        message, data = payloads.split(chunk)
        taken = payloads.joined(type(message).FromString(message.SerializeToString()), data)
        assert isinstance(taken, Piece)
        taken.name = taken.name.replace(str(self.here), str(self.there))
        taken.hard_link = taken.hard_link.replace(str(self.here), str(self.there))
        self._taker.take(taken)

    def begin(self) -> None:
        """Copy it all."""
        self.tree.copy(self.send)
        assert look(self.there) == look(self.here)

    def settle(self) -> None:
        """What changed since; then both are the same."""
        self.tree.copy_changed(self.send, ())
        assert look(self.there) == look(self.here)


def look(top: Path) -> dict[str, tuple[object, ...]]:
    """Name -> mode, owner, time, content, attribute and other names, without what is kept for the way back."""
    found: dict[str, tuple[object, ...]] = {}
    every = [one for one in (top, *sorted(top.rglob("*"))) if ".migrate-" not in str(one)]
    first: dict[int, Path] = {}
    for one in every:
        status = one.lstat()
        regular = stat.S_ISREG(status.st_mode)
        data = one.read_bytes() if regular else b""
        extra = [os.getxattr(one, name) for name in os.listxattr(one, follow_symlinks=False)]
        same = str(first.setdefault(status.st_ino, one).relative_to(top)) if regular else ""
        found[str(one.relative_to(top))] = (
            status.st_mode,
            status.st_uid,
            status.st_mtime_ns,
            data,
            extra,
            same,
        )
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


def test_a_directory_that_its_owner_may_not_write(copy: Copy) -> None:
    """As of a cache of modules. The owner could change that himself at any time."""
    (copy.here / "sub").mkdir()
    for name in ("one", "two", "three"):
        (copy.here / "sub" / name).write_text("1")
    os.chown(copy.here / "sub", 12345, 12345)
    (copy.here / "sub").chmod(0o2555)
    copy.begin()
    (copy.here / "sub/one").write_text("another")
    (copy.here / "sub/two").unlink()
    copy.settle()
    for entry in reversed(records.read(copy.journal.directory).entries):
        entry.undo()
    assert not copy.there.exists()


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


def test_a_link_that_somebody_put_in_the_place_of_ours_is_not_followed(copy: Copy, tmp_path: Path) -> None:
    (copy.here / "sub").mkdir()
    (copy.here / "sub/one").write_text("1")
    copy.begin()
    (copy.there / "sub").rename(copy.there / "ours")
    (tmp_path / "victim").mkdir(mode=0o700)
    (copy.there / "sub").symlink_to(tmp_path / "victim")
    (copy.here / "sub").chmod(0o777)
    (copy.here / "sub/one").write_text("2")
    with pytest.raises(MigrateError, match="symbolic link"):
        copy.tree.copy_changed(copy.send, ())
    assert stat.S_IMODE((tmp_path / "victim").stat().st_mode) == 0o700


def test_a_name_as_long_as_a_name_may_be(copy: Copy) -> None:
    for name in ("f" * 255, "d" * 255):
        (copy.there).mkdir(exist_ok=True)
        (copy.there / name).write_text("its")
    (copy.here / ("f" * 255)).write_text("new")
    (copy.here / ("d" * 255)).mkdir()
    (copy.here / ("l" * 255)).symlink_to("nowhere")
    copy.begin()
    (copy.here / ("f" * 255)).write_text("newer")
    (copy.here / ("l" * 255)).unlink()
    copy.settle()


@pytest.mark.parametrize("kind", ["file", "link", "directory", "attribute"])
def test_a_name_that_is_no_text_is_a_reason(copy: Copy, kind: str) -> None:
    odd = copy.here / os.fsdecode(b"odd\xff")
    if kind == "link":
        odd.symlink_to("x")
    elif kind == "directory":
        odd.mkdir()
    else:
        odd = odd if kind == "file" else copy.here / "plain"
        odd.write_text("x")
        if kind == "attribute":
            os.setxattr(odd, b"user.\xff", b"1")
    with pytest.raises(MigrateError, match="not UTF-8") as caught:
        copy.begin()
    assert caught.value.problem.hint and str(caught.value).isprintable()


def test_what_is_found_in_a_tree_before(copy: Copy) -> None:
    """What would be refused is a reason, what is left out is told."""
    (copy.here / os.fsdecode(b"odd\xff")).touch()
    (copy.here / "sub").mkdir()
    (copy.here / "sub/program").touch()
    (copy.here / "sub/program").chmod(0o4755)
    os.mkfifo(copy.here / "sub/pipe")
    os.mkfifo(copy.here / "other")
    own = str(copy.here / "own.sock")
    socket.socket(socket.AF_UNIX).bind(own)
    used = [File(path=str(copy.here / one), use=File.OPEN) for one in ("sub/pipe", "sub/program")]
    found = ProcessInventory(root_pid=7, names=[TakenName(kind=TakenName.PATH, name=own)], files=used)
    notes = beside.add(found, [str(copy.here)], copying=False)
    assert sorted((one.code, one.what) for one in found.obstacles) == [
        ("tree-left-out", f"{copy.here}/sub/pipe"),
        ("tree-name", f"{copy.here}/odd\N{REPLACEMENT CHARACTER}"),
        ("tree-set-id", f"{copy.here}/sub/program"),
    ]
    assert len(notes) == 1 and "leaves out other, sub/pipe:" in notes[0]
    assert {one.code for one in found.obstacles} <= WORDS.keys()


def test_what_it_has_open_in_what_is_mounted_there(copy: Copy) -> None:
    used = [File(path=str(copy.here / one), use=File.OPEN) for one in ("volume/precious", "volumes")]
    found = ProcessInventory(root_pid=7, files=used)
    with mounted(copy.here / "volume"):
        beside.add(found, [str(copy.here)], copying=False)
    assert [(one.code, one.what) for one in found.obstacles] == [("tree-left-out", used[0].path)]


def test_a_path_that_no_call_takes(copy: Copy) -> None:
    home, name = Path.cwd(), "d" * 200
    try:
        os.chdir(copy.here)
        for _ in range(21):
            Path(name).mkdir()
            os.chdir(name)
    finally:
        os.chdir(home)
    found = ProcessInventory()
    beside.add(found, [str(copy.here)], copying=False)
    assert {one.code for one in found.obstacles} == {"tree-path"}


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[None]:
    """A file system of its own at *path*, with a file in it."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(path)], check=True)
    try:
        (path / "precious").write_text("somebody's")
        yield
        assert (path / "precious").read_text() == "somebody's"
    finally:
        subprocess.run(["umount", str(path)], check=True)


def there(path: Path) -> File:
    (found,) = compared.there([File(path=str(path), use=File.COPIED_TREE)])
    return found


@pytest.mark.parametrize("below", ["", "sub/volume"])
def test_what_is_mounted_there_is_found(tmp_path: Path, below: str) -> None:
    with mounted(tmp_path / "there" / below):
        assert there(tmp_path / "there").mounts == [str(tmp_path / "there" / below)]
    assert there(tmp_path / "there").mounts == []


def test_what_only_the_destination_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = tmp_path / "it"
    for name in ("same", "sub/same", "d", "c", "sub/b", "a"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("1")
    (top / "link").symlink_to(top / "sub")
    its = there(top)
    assert not its.more_below
    assert replaced.notes([its]) == []
    for name in ("a", "sub/b", "c", "d", "link"):
        (top / name).unlink()
    (note,) = replaced.notes([its])
    assert note == (
        f"5 files in {top} on the destination are not in the one here, and go with it when the process has moved:"
        " a, c, d, ..."
    )
    (top / "other").write_text("1")
    monkeypatch.setattr(replaced, "MOST_NAMES", 3)
    its = there(top)
    assert (set(its.below), its.more_below) == ({"same", "sub/same", "other"}, False)
    monkeypatch.setattr(replaced, "MOST_NAMES", 2)
    its = there(top)
    assert (len(its.below), its.more_below) == (2, True)
    shutil.rmtree(top)
    (note,) = replaced.notes([its])
    assert note.startswith("at least 2 files in ")
    assert note.endswith(", ...")


def test_who_uses_something_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "there/sub").mkdir(parents=True)
    (tmp_path / "there/sub/file").write_text("1")
    (tmp_path / "there2").mkdir()
    open_file = ["tail", "-f", str(tmp_path / "there/sub/file")]
    users = [
        (open_file, "/"),
        (["sleep", "99"], tmp_path / "there/sub"),
        (["sleep", "99"], tmp_path / "there2"),
    ]
    running = [subprocess.Popen(words, cwd=cwd, stdout=subprocess.DEVNULL) for words, cwd in users]
    try:
        eventually(lambda: len(there(tmp_path / "there").writers) == 2, "both use it")
        expected = {f"tail (PID {running[0].pid})", f"sleep (PID {running[1].pid})"}
        assert set(there(tmp_path / "there").writers) == expected
    finally:
        for one in running:
            one.kill()
            one.wait()


@contextlib.contextmanager
def container(source: Path, place: Path, *, own_namespace: bool) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has *source* mounted at *place*, has a file of it open, and does not know its name here."""
    place.mkdir(exist_ok=True)
    script = 'mount --bind "$0" "$1" && cd / && exec 7>>"$1/file" && echo >&7 && exec sleep 99'
    words = ["unshare", "-m"] * own_namespace + ["sh", "-c", script, str(source), str(place)]
    with subprocess.Popen(words) as running:
        try:
            name = Path(f"/proc/{running.pid}/comm")  # its last step, by which it is named
            eventually(lambda: name.read_text() == "sleep\n", "it has mounted it")
            yield running
        finally:
            running.kill()
            running.wait()
            subprocess.run(["umount", str(place)], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("own_namespace", [True, False])
@pytest.mark.parametrize("mounts", ["there", "there/sub", "."])
def test_who_has_it_under_another_name(tmp_path: Path, mounts: str, own_namespace: bool) -> None:
    top, place, shown = tmp_path / "there", tmp_path / "elsewhere", tmp_path / "there/sub" / "file"
    (top / "sub").mkdir(parents=True)
    with container(tmp_path / mounts, place, own_namespace=own_namespace) as running:
        found = there(top)
        where = f" in the mount namespace of sleep (PID {running.pid})" if own_namespace else ""
        inside = mounts != "."
        assert found.mounts == [f"{place}{where}"] * inside
        assert found.writers == [f"sleep (PID {running.pid})"] * inside
        assert shown.exists() is (mounts == "there/sub")
    assert (there(top).mounts, there(top).writers) == ([], [])


def test_what_a_container_uses_since_is_not_removed_with_what_was_replaced(
    copy: Copy, tmp_path: Path
) -> None:
    copy.there.mkdir()
    (copy.there / "precious").write_text("somebody's")
    copy.begin()
    aside = next(one for one in tmp_path.iterdir() if ".migrate-" in one.name)
    entry = next(one for one in records.read(copy.journal.directory).of(Copied) if one.backup == str(aside))
    with container(aside, tmp_path / "elsewhere", own_namespace=True):
        with pytest.raises(MigrateError, match="mounted: .*elsewhere in the mount namespace of sleep"):
            entry.forget()
        assert (aside / "precious").read_text() == "somebody's"
    with (aside / "precious").open(), pytest.raises(MigrateError, match="is used by"):
        entry.forget()
    entry.forget()
    assert not aside.exists()


def test_what_was_mounted_later_is_not_removed_with_what_was_replaced(copy: Copy, tmp_path: Path) -> None:
    (copy.there / "sub").mkdir(parents=True)
    copy.begin()
    aside = next(one for one in tmp_path.iterdir() if ".migrate-" in one.name)
    with mounted(aside / "volume"):
        entry = next(
            one for one in records.read(copy.journal.directory).of(Copied) if one.backup == str(aside)
        )
        with pytest.raises(MigrateError, match="mounted"):
            entry.forget()
    entry.forget()
    assert not aside.exists()


def test_a_file_with_several_names_is_one(copy: Copy) -> None:
    """Also when it was changed, got one more, and its first name was given to another file."""
    (copy.here / "sub").mkdir()
    (copy.here / "one").write_text("1")
    (copy.here / "sub/two").hardlink_to(copy.here / "one")
    (copy.here / "other").write_text("2")
    (copy.here / "another").hardlink_to(copy.here / "other")
    copy.begin()
    (copy.here / "a third").hardlink_to(copy.here / "one")
    (copy.here / "one").write_text("changed")
    (copy.here / "other").unlink()
    (copy.here / "new").write_text("2")
    (copy.here / "new").rename(copy.here / "other")
    copy.settle()
    (copy.here / "sub/two").unlink()
    copy.settle()


def test_names_that_criu_makes_are_left_out(copy: Copy) -> None:
    """While it dumps; a file of that name that was there before, or has no other name, is the program's."""
    for name in ("one", "link_remap.1"):
        (copy.here / name).write_text(name)
    copy.begin()
    (copy.here / "link_remap.2").write_text("2")
    (copy.here / "link_remap.3").hardlink_to(copy.here / "one")
    copy.tree.copy_changed(copy.send, ())
    (copy.here / "link_remap.3").unlink()
    assert {one.name for one in copy.there.iterdir()} == {one.name for one in copy.here.iterdir()}


def test_what_is_written_through_a_mapping_reaches_all_names(copy: Copy) -> None:
    (copy.here / "one").write_bytes(b"x" * mmap.PAGESIZE)
    (copy.here / "two").hardlink_to(copy.here / "one")
    with (copy.here / "one").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 65
        copy.begin()
        memory[0] = 66
        copy.tree.copy_changed(copy.send, {str(copy.here / "one")})
    assert (copy.there / "two").read_bytes()[:1] == b"B"
    assert (copy.there / "two").samefile(copy.there / "one")


@pytest.mark.parametrize("change", ["time", "attribute", "owner", "mode"])
def test_what_changes_but_its_content(copy: Copy, change: str) -> None:
    (copy.here / "sub").mkdir()
    (copy.here / "link").symlink_to("nowhere")
    places = [copy.here / "sub", copy.here / "sub/one", copy.here]
    places[1].write_text("1")
    copy.begin()
    for one in places:
        if change == "time":
            os.utime(one, (1e9, 1e9))
        elif change == "attribute":
            os.setxattr(one, "user.name", b"1")
        elif change == "owner":
            os.chown(one, 12345, 12345)
        else:
            one.chmod(0o751)
    copy.settle()


def test_a_name_is_made_only_of_what_was_copied(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root's")
    (copy.here / "one").write_text("1")
    copy.begin()
    first = str(copy.there / "one")
    with pytest.raises(MigrateError, match="not what was copied"):
        copy.send(Piece(name=f"{copy.there}/two", hard_link=str(tmp_path / "secret"), last=True))
    Path(first).unlink()
    Path(first).hardlink_to(tmp_path / "secret")
    with pytest.raises(MigrateError, match="not what was copied"):
        copy.send(Piece(name=f"{copy.there}/two", hard_link=first, last=True))
    assert not (copy.there / "two").exists() and (tmp_path / "secret").stat().st_nlink == 2


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Path]:
    """An overlay with a directory of its lower layer, it and another one in that: of the upper one."""
    layers = tmp_path / "layers"
    layers.mkdir()
    run = subprocess.check_call
    run(["mount", "-t", "tmpfs", "none", layers])
    for name in ("lower/a dir/sub", "upper/a dir/made", "work", "merged"):
        (layers / name).mkdir(parents=True)
    (layers / "lower/a dir/sub/file").write_text("below")
    (layers / "upper/a dir/made/file").write_text("above")
    options = f"redirect_dir=off,lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
    run(["mount", "-t", "overlay", "-o", options, "none", layers / "merged"])
    yield layers / "merged"
    run(["umount", "-R", layers])


def test_a_directory_of_a_lower_layer(layers: Path, copy: Copy) -> None:
    """It cannot be renamed, which is said; by either remedy it can."""
    taker, tree = FileTaker(copy.journal), layers / "a dir"
    before = look(tree)
    with pytest.raises(MigrateError, match="lower layer of an overlay") as caught:
        taker.take(Piece(str(tree), removed=True))
    assert look(tree) == before
    taker.take(Piece(str(tree / "made"), removed=True))
    assert not (tree / "made").exists()
    command = caught.value.problem.hint.split("`")[1]
    subprocess.check_call(["sh", "-c", command])
    assert (tree / "sub/file").read_text() == "below"
    taker.take(Piece(str(tree), removed=True))
    assert not tree.exists()
