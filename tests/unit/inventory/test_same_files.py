"""Which files are the same on both hosts, and what is looked at again in the freeze."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from inventories import destination, only, process, reasons

from migrate import checks
from migrate.checks.files import appended, files_to_compare
from migrate.checks.subject import Subject
from migrate.errors import MigrateError
from migrate.files import locks
from migrate.files.content import Digests
from migrate.files.leases import parse
from migrate.inventory import beside, compared, inside, neighbours, storage
from migrate.inventory.file_facts import database
from migrate.inventory.files import Files
from migrate.inventory.open_files import Again
from migrate.link.payloads import Piece
from migrate.origin.carried_files import CarriedFiles
from migrate.pb.session_pb2 import Compare, Compared, File, HostInventory, ProcessInventory
from migrate.processes import mounts
from migrate.request import Along

DATA = "/var/lib/app/data"
NO_IMAGES = Path("/nonexistent")


def data(path: str = DATA, **more: Any) -> File:
    fields = {"use": File.OPEN, "size_bytes": 7, "exists": True, "regular": True, "written": True, "inode": 5}
    return File(path=path, **(fields | more))


def test_content_decides_and_not_size() -> None:
    here, there = data(content=b"1"), data(content=b"2")
    reason = only(reasons(process(files=[here]), None, destination(files=[there])))
    assert reason.code == "other-file" and "other content" in reason.text and "--copy-files" in reason.remedy
    assert checks.files_to_copy(process(files=[here]), destination(files=[there])) == [here]
    assert reasons(process(files=[here]), None, destination(files=[here])) == []


def test_only_the_necessary_is_read() -> None:
    def wanted(here: File, there: File, *, copying: bool = False) -> int:
        return len(files_to_compare(process(files=[here, here]), destination(files=[there]), copying=copying))

    assert wanted(data(), data()) == 1
    assert wanted(data(), data(size_bytes=8)) == 0
    assert wanted(data(build_id=b"1"), data(build_id=b"1")) == 0
    assert wanted(data(storage="nfs4 x"), data(storage="nfs4 x")) == 0
    assert wanted(data(storage=""), data(storage="")) == 1
    # A log goes on behind what is there, unless it is to be the same.
    assert wanted(data(append_only=True), data()) == 0
    assert wanted(data(append_only=True), data(), copying=True) == 1


def test_a_log_in_a_tree_that_is_copied_goes_along() -> None:
    """It is as it was here: nothing is told of the one there."""
    log = data(append_only=True)
    folder = str(Path(log.path).parent)
    for trees, told in (((), 1), ((folder,), 0)):
        subject = Subject(
            process(files=[log]), destination(), destination(files=[log]), Along(copy_trees=trees)
        )
        assert len(list(appended(subject))) == told


def test_a_file_on_shared_storage_is_the_same() -> None:
    here, there = data(storage="nfs4 s:/x 1 7", content=b"1"), data(storage="nfs4 s:/x 1 7", size_bytes=9)
    assert reasons(process(files=[here]), None, destination(files=[there])) == []


def test_mode() -> None:
    here, there = data(mode=stat.S_IFREG | 0o640), data(mode=stat.S_IFREG | 0o644)
    found = process(files=[here]), None, destination(files=[there])
    reason = only(reasons(*found))
    assert (reason.code, reason.remedy) == ("other-mode", f"Make them the same: chmod 0640 {DATA}")
    assert reasons(*found, copy_files=True) == []


@pytest.mark.parametrize(
    ("there", "here", "code"),
    [
        ({"real_path": "/mnt/x"}, {}, "link-in-path"),
        ({"writers": ["cat (PID 9)"]}, {}, "file-in-use"),
        ({}, {"mode": stat.S_IFREG | 0o4755}, "set-id-file"),
        ({}, {"format": "SQLite"}, "open-database"),
        ({}, {"format": "LMDB"}, "open-database"),
    ],
)
def test_what_is_not_copied(there: dict[str, Any], here: dict[str, Any], code: str) -> None:
    ours = data(content=b"1", **here)
    its = data(content=b"2", **(({"inode": 6}) | there))
    reason = only(reasons(process(files=[ours]), None, destination(files=[its]), copy_files=True))
    assert reason.code == code and reason.remedy


def test_sqlite_knows_its_inode() -> None:
    """The same content under another inode is no help to it; LMDB does not look."""
    for kind, other, refused in (("SQLite", 6, True), ("SQLite", 5, False), ("LMDB", 6, False)):
        files = process(files=[data(format=kind)]), None, destination(files=[data(inode=other)])
        assert bool(reasons(*files)) is refused


def test_databases_are_known_by_their_first_bytes() -> None:
    assert database(b"SQLite format 3\0" + bytes(16)) == "SQLite"
    assert database(bytes(16) + b"\xde\xc0\xef\xbe" + bytes(12)) == "LMDB"
    assert database(b"") == database(b"SQLite") == ""


def test_who_stays_and_writes_what_the_process_reads_and_writes() -> None:
    here = data(content=b"1", writers=["stats (PID 9)"])
    for copying in (False, True):
        reason = only(
            reasons(process(files=[here]), None, destination(files=[data(content=b"1")]), copy_files=copying)
        )
        assert (reason.code, reason.role) == ("file-outside", "origin") and "stats (PID 9)" in reason.text
    shared = data(storage="nfs4 s:/x 1 7", writers=["stats (PID 9)"])
    assert reasons(process(files=[shared]), None, destination(files=[shared])) == []


def test_locks_that_are_held_there() -> None:
    here = data(locks=["FLOCK WRITE 0 EOF"])
    reason = only(reasons(process(files=[here]), None, destination(files=[data(lockers=["flock (PID 9)"])])))
    assert reason.code == "lock-taken" and "flock (PID 9)" in reason.text


def test_locks_on_shared_storage() -> None:
    """The frozen process has it here, so that nobody gets it there."""
    shared = data(storage="nfs4 s:/x 1 7", locks=["POSIX WRITE 0 EOF"])
    reason = only(reasons(process(files=[shared]), None, destination(files=[data(storage=shared.storage)])))
    assert reason.code == "lock-on-shared" and shared.path in reason.text
    shared.locks[:] = ["POSIX READ 0 EOF"]
    assert reasons(process(files=[shared]), None, destination(files=[data(storage=shared.storage)])) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "meet"),
    [
        ("FLOCK WRITE 0 EOF", "FLOCK READ 0 EOF", True),
        ("FLOCK READ 0 EOF", "FLOCK READ 0 EOF", False),
        ("FLOCK WRITE 0 EOF", "POSIX WRITE 0 EOF", False),
        ("OFDLCK WRITE 0 9", "POSIX READ 9 EOF", True),
        ("POSIX WRITE 0 9", "POSIX WRITE 10 EOF", False),
        ("", "POSIX WRITE 10 EOF", False),
    ],
)
def test_locks_that_meet(ours: str, theirs: str, meet: bool) -> None:
    assert locks.conflict(ours, theirs) is meet


def test_leases() -> None:
    text = "1: LEASE  ACTIVE    WRITE 1 08:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 2 08:01:78 0 EOF\n"
    assert parse(text) == ["08:01:77"]


def test_what_lies_beside(tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    for name in ("base.rdb", "incr.aof", "app.log", ".hidden"):
        (folder / name).write_text("x")
    aof = data(str(folder / "incr.aof"), append_only=True, uid=os.geteuid())
    found = list(neighbours.of([aof]))
    assert [one.path for one in found] == [str(folder / "base.rdb")]
    assert not list(neighbours.of([aof], [str(folder)]))
    there = [one for one in [aof, *found] if one.use != File.NEIGHBOUR]
    moving = process(files=[aof, *found]), None, destination(files=there)
    reason = only(reasons(*moving, copy_files=True))
    assert reason.code == "files-beside" and "base.rdb" in reason.text
    assert f"--copy-tree {folder}" in reason.remedy
    assert reasons(*moving) == []
    assert reasons(*moving, copy_files=True, copy_trees=(str(folder),)) == []


def test_what_a_directory_has_inside(tmp_path: Path) -> None:
    """Also in those below it, and these themselves where there is nothing in them."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("known", ".env", "app.log", "sub/page", "sub/known"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("known")
    known = {str(tmp_path / name) for name in ("known", "sub/known")}
    assert sorted(inside.of(str(tmp_path), {*known, str(tmp_path / "sub/page")})) == [".env", "empty", "link"]
    assert len(inside.of(str(tmp_path), known)) == 3
    assert inside.of(str(tmp_path / "empty"), known) == []


def test_a_directory_that_is_removed_while_it_is_looked_at(tmp_path: Path) -> None:
    """A program goes on, and may do so all the time; in the freeze it is looked at again."""
    gone = File(path=str(tmp_path / "gone"), use=File.WORKING_DIRECTORY, directory=True)
    inside.add([gone])
    assert list(gone.below) == []
    assert list(neighbours.of([data(f"{gone.path}/data")])) == []
    tree = ProcessInventory()
    assert beside.add(tree, [gone.path], copying=False) == [] and not tree.files[0].exists


def test_a_directory_is_not_made_empty(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("x")
    here = File(path=str(tmp_path), use=File.WORKING_DIRECTORY, directory=True, exists=True, mode=0o40755)
    inside.add([here])
    missing = process(files=[here]), None, destination()
    reason = only(reasons(*missing, copy_files=True))
    assert reason.code == "directory-emptied" and "page" in reason.text
    assert f"--copy-tree {tmp_path}" in reason.remedy
    assert reasons(*missing, copy_files=True, copy_trees=(str(tmp_path),)) == []
    there = process(files=[here]), None, destination(files=[here])
    assert reasons(*there, copy_files=True) == []


@pytest.mark.parametrize(
    ("here", "there", "code"),
    [
        ({"path": "/etc"}, {}, "tree-of-host"),
        ({"directory": False}, {}, "no-tree"),
        ({}, {"real_path": "/mnt/app"}, "link-in-path"),
        ({}, {"directory": False}, "other-file"),
        ({}, {"writers": ["sh (PID 7)"]}, "file-in-use"),
        ({}, {"mounts": ["/srv/app/volume"]}, "tree-mounted"),
        ({"storage": "x"}, {"storage": "x"}, "tree-shared"),
    ],
)
def test_trees_that_are_not_copied(here: dict[str, Any], there: dict[str, Any], code: str) -> None:
    fields = {"path": "/srv/app", "use": File.COPIED_TREE, "directory": True, "exists": True}
    moving = process(files=[File(**(fields | here))]), None, destination(files=[File(**(fields | there))])
    assert only(reasons(*moving, copy_trees=("/srv/app",))).code == code


# --- content ----------------------------------------------------------------------------------------------


def _old(path: Path) -> None:
    """Long unchanged, as far as the times tell that a program can set."""
    os.utime(path, (1, 1))


def test_a_file_is_read_again_only_when_it_may_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, digests = tmp_path / "file", Digests()
    file.write_text("one")
    first = digests.of(str(file))
    assert digests.of(str(file)) == first
    file.write_text("two")  # in the same moment, of the same size
    assert digests.changed(str(file)) and digests.of(str(file)) != first
    monkeypatch.setattr("migrate.files.content.SETTLED_NS", -(10**18))
    second = digests.of(str(file))
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("read again"))
    assert digests.of(str(file)) == second and not digests.changed(str(file))


def test_how_far_it_is_with_a_large_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is compared, and as it is copied; a hole is read as well, and takes as long."""
    told: list[int] = []
    large = tmp_path / "large"
    with large.open("wb") as made:
        made.truncate(200 << 20)
    Digests(tell=told.append).of(str(large))
    assert told == [64 << 20, 128 << 20, 192 << 20]
    told.clear()
    there = Destination(monkeypatch)
    care = CarriedFiles(there.ask, there.send, copying=True, tell=told.append)
    care.copy([opened(large)])
    assert len(told) == 3 and told[-1] >= 192 << 20
    told.clear()
    tree = CarriedFiles(there.ask, there.send, copying=False, trees=[str(tmp_path)], tell=told.append)
    tree.copy([])
    assert len(told) == 3


def test_times_tell_nothing_of_what_is_mapped_shared(tmp_path: Path) -> None:
    file, digests = tmp_path / "file", Digests()
    file.write_bytes(b"a" * 4096)
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[0] = 98
        time.sleep(0.05)
        digests.of(str(file), mapped_shared=True)
        status = file.stat()
        digests.took(str(file), status, digests.known(str(file)))
        mapped[0] = 99  # the page is writable by now: no fault, no new time
        assert digests.changed(str(file), mapped_shared=True)


# --- in the freeze ----------------------------------------------------------------------------------------


class Destination:
    """Answers as the agent does, from files below another directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **contents: bytes) -> None:
        self.contents, self.sent = contents, list[Piece]()
        monkeypatch.setattr("migrate.files.copies.send_directory_above", lambda *_: None)

    def ask(self, question: Compare, meanwhile: Callable[[], None]) -> Compared:
        meanwhile()
        return Compared(files=[self._answer(one) for one in question.files])

    def _answer(self, one: File) -> File:
        if (found := self.contents.get(Path(one.path).name)) is None:
            return File(path=one.path, use=one.use)
        digest = sha256(found).digest()
        return File(
            path=one.path, use=one.use, exists=True, regular=True, size_bytes=len(found), content=digest
        )

    def send(self, chunk: Piece) -> None:
        self.sent.append(chunk)
        self.contents[Path(chunk.name).name] = chunk.data


def carried(there: Destination, files: list[File], *, copying: bool) -> CarriedFiles:
    found = CarriedFiles(there.ask, there.send, copying=copying)
    question = Compare(files=files)
    answers = HostInventory(files=there.ask(question, lambda: None).files)
    for one in answers.files:
        one.content = b""
    ours = process(files=files)
    found.compare(ours, answers)
    if copying:
        found.copy(checks.files_to_copy(ours, answers))
    return found


def opened(path: Path, **more: Any) -> File:
    return data(str(path), size_bytes=path.stat().st_size, **more)


def opened_new(path: Path) -> File:
    path.write_text("1")
    return opened(path)


def test_what_changes_until_the_freeze_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Destination(monkeypatch, same=b"1", differs=b"2")
    paths = {name: tmp_path / name for name in ("same", "differs", "missing", "late")}
    for path in paths.values():
        path.write_text("1")
    files = [opened(paths[name]) for name in ("same", "differs", "missing")]
    care = carried(there, files, copying=True)
    assert [Path(one.name).name for one in there.sent] == ["differs", "missing"]
    there.sent.clear()
    paths["missing"].write_text("3")
    now = Again([*files, opened(paths["late"])], {}, [])
    care.settle(now, NO_IMAGES)
    assert sorted(Path(one.name).name for one in there.sent) == ["late", "missing"]
    assert there.contents == {"same": b"1", "differs": b"1", "missing": b"3", "late": b"1"}


def test_what_is_made_beside_until_the_freeze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, log = Destination(monkeypatch, log=b"1"), tmp_path / "log"
    for name in ("log", "base"):
        (tmp_path / name).write_text("1")
    files = [opened(log), File(path=str(tmp_path / "base"), use=File.NEIGHBOUR, regular=True)]
    care = carried(there, files, copying=True)
    now = Again([opened(log)], {}, [])
    care.settle(now, NO_IMAGES)
    (tmp_path / "second").write_text("2")
    with pytest.raises(MigrateError, match="second was made since the check") as caught:
        care.settle(now, NO_IMAGES)
    assert f"--copy-tree {tmp_path}," in caught.value.problem.hint


@pytest.mark.parametrize("how", ["write", "mapping", "remove", "same"])
def test_what_was_copied_and_is_closed_before_the_freeze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    there, path = Destination(monkeypatch), tmp_path / "file"
    path.write_bytes(b"1" * mmap.PAGESIZE)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 50
        os.utime(path, ns=(1, 1))
        # Opened as well, and watched: of all uses the one counts in which it is written.
        files = [opened(path, use=File.MAPPED, mapped_shared=True), opened(path)]
        files.append(opened(path, use=File.WATCHED, written=False))
        care = carried(there, files, copying=True)
        there.sent.clear()
        if how == "write":
            path.write_bytes(b"2")
        elif how == "mapping":
            memory[0] = 51
        elif how == "remove":
            path.unlink()
    care.settle(Again([], {}, []), NO_IMAGES)
    assert [one.removed for one in there.sent] == {"same": [], "remove": [True]}.get(how, [False])
    if how != "remove":
        assert there.contents["file"] == path.read_bytes()


def test_what_is_closed_and_was_not_to_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Destination(monkeypatch, written=b"1", removed=b"1", read=b"1", log=b"1")
    paths = {name: tmp_path / name for name in there.contents}
    for path in paths.values():
        path.write_text("1")
    files = [opened(paths["written"]), opened(paths["read"], written=False)]
    files += [opened(paths["log"], append_only=True), opened(paths["removed"])]
    care = carried(there, files, copying=False)
    paths["read"].unlink()
    paths["log"].unlink()
    care.settle(Again([], {}, []), NO_IMAGES)
    paths["written"].write_text("2")
    with pytest.raises(MigrateError, match="written has changed since it was compared"):
        care.settle(Again([], {}, []), NO_IMAGES)
    # Also where it is open again, for reading.
    with pytest.raises(MigrateError, match="written has changed since it was compared"):
        care.settle(Again([opened(paths["written"], written=False)], {}, []), NO_IMAGES)
    paths["written"].write_text("1")
    paths["removed"].unlink()
    with pytest.raises(MigrateError, match="removed was removed"):
        care.settle(Again([], {}, []), NO_IMAGES)
    assert not there.sent


def test_what_has_changed_beside_until_the_freeze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, files = Destination(monkeypatch, log=b"1", base=b"1"), [opened_new(tmp_path / "log")]
    base = tmp_path / "base"
    base.write_text("1")
    files.append(File(path=str(base), use=File.NEIGHBOUR, regular=True, size_bytes=1))
    care = carried(there, files, copying=True)
    care.settle(Again([], {}, []), NO_IMAGES)
    base.write_text("2")
    with pytest.raises(MigrateError, match="base has changed or is gone since the check, beside"):
        care.settle(Again([], {}, []), NO_IMAGES)
    base.rename(tmp_path / "other")
    with pytest.raises(MigrateError, match="other was made since the check, beside"):
        care.settle(Again([], {}, []), NO_IMAGES)


def test_a_tree_with_what_is_mapped_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, path = Destination(monkeypatch), tmp_path / "tree/file"
    path.parent.mkdir()
    path.write_bytes(b"1" * mmap.PAGESIZE)
    care = CarriedFiles(there.ask, there.send, copying=False, trees=[str(path.parent)])
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 50
        files = [opened(path, use=File.MAPPED, mapped_shared=True)]
        care.compare(process(files=files), HostInventory())
        time.sleep(3)  # so long that its times are trusted
        care.copy([])
        memory[0] = 51
    care.settle(Again([], {}, []), NO_IMAGES)
    assert there.contents["file"][:1] == b"3"


def test_what_criu_makes_beside_in_the_freeze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, file = Destination(monkeypatch), opened_new(tmp_path / "file")
    care = carried(there, [file], copying=True)
    (tmp_path / "link_remap.7").hardlink_to(file.path)
    care.settle(Again([file], {}, []), NO_IMAGES)
    (tmp_path / "link_remap.8").write_text("the program's")
    with pytest.raises(MigrateError, match=r"link_remap\.8 was made"):
        care.settle(Again([file], {}, []), NO_IMAGES)


def test_who_begins_to_write_a_file_too_until_the_freeze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, file = Destination(monkeypatch, same=b"1"), tmp_path / "same"
    file.write_text("1")
    care = carried(there, [opened(file)], copying=True)
    care.settle(Again([opened(file)], {}, []), NO_IMAGES)
    with pytest.raises(MigrateError, match="same is written by stats"):
        care.settle(Again([opened(file, writers=["stats (PID 9)"])], {}, []), NO_IMAGES)


def test_a_lock_on_shared_storage_until_the_freeze(tmp_path: Path) -> None:
    file = opened_new(tmp_path / "file")
    file.storage = storage.name(file.path)
    care = CarriedFiles(lambda *_: Compared(), lambda _: None, copying=False)
    care.compare(process(files=[file]), HostInventory(files=[file]))
    care.settle(Again([file], {}, []), NO_IMAGES)
    file.locks.append("FLOCK WRITE 0 EOF")
    with pytest.raises(MigrateError, match="write lock, is on storage that both hosts share"):
        care.settle(Again([file], {}, []), NO_IMAGES)


def test_without_leave_to_copy_it_goes_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Destination(monkeypatch, same=b"1", log=b"long")
    same, log, late = tmp_path / "same", tmp_path / "log", tmp_path / "late"
    for path in (same, log, late):
        path.write_text("1")
    files = [opened(same), opened(log, append_only=True)]
    now = Again(files, {}, [])
    care = carried(there, files, copying=False)
    log.write_text("more")
    care.settle(now, NO_IMAGES)
    same.write_text("2")
    with pytest.raises(MigrateError, match="same has changed since") as caught:
        care.settle(now, NO_IMAGES)
    assert "--copy-files" in caught.value.problem.hint
    same.write_text("1")
    there.contents["same"] = b"9"  # somebody over there writes it
    with pytest.raises(MigrateError, match="same has changed since"):
        care.settle(now, NO_IMAGES)
    there.contents["same"] = b"1"
    now = Again([*files, opened(late)], {}, [])
    with pytest.raises(MigrateError, match="late.*does not exist.*opened since"):
        care.settle(now, NO_IMAGES)
    assert not there.sent


def test_a_directory_opened_since_the_check_is_not_made_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, folder = Destination(monkeypatch), tmp_path / "folder"
    care = carried(there, [], copying=True)
    folder.mkdir()
    (folder / "page").write_text("x")
    late = File(path=str(folder), use=File.OPEN, directory=True, exists=True, mode=0o40755)
    with pytest.raises(MigrateError, match="folder, which the process uses, without page in it"):
        care.settle(Again([late], {}, []), NO_IMAGES)
    assert not there.sent


def test_directories_and_watched_paths_since_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entered, opened or watched: what the process can still do until it is frozen."""
    there, folder, file = Destination(monkeypatch), tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("1")
    late = [
        File(path=str(folder), use=File.WORKING_DIRECTORY, exists=True, directory=True),
        File(path=str(file), use=File.WATCHED, exists=True, regular=True),
    ]
    now = Again(late, {}, [])
    with pytest.raises(MigrateError, match="watches for changes, does not exist.*folder does not exist"):
        carried(there, [], copying=False).settle(now, NO_IMAGES)
    carried(there, [], copying=True).settle(now, NO_IMAGES)
    assert [one.name for one in there.sent if one.name == str(folder)] and there.contents["file"] == b"1"


def test_a_directory_that_is_read_since_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known or opened since, unless it is one that both hosts see."""
    folder = File(path=str(tmp_path), use=File.OPEN, exists=True, directory=True, storage="nfs4 s:/x 1 7")
    reading = File(path=str(tmp_path), use=File.OPEN, exists=True, directory=True, read_in_part=True)
    there = Destination(monkeypatch)
    shared = CarriedFiles(there.ask, there.send, copying=False)
    shared.compare(process(files=[folder]), HostInventory(files=[folder]))
    shared.settle(Again([reading], {}, []), NO_IMAGES)
    monkeypatch.setattr(there, "_answer", lambda _: folder)
    late = File()
    late.CopyFrom(folder)
    late.read_in_part = True
    carried(there, [], copying=False).settle(Again([late], {}, []), NO_IMAGES)
    late.storage = "nfs4 s:/y 1 7"
    with pytest.raises(MigrateError, match="a directory of which .*not so when it was checked"):
        carried(there, [], copying=True).settle(Again([late], {}, []), NO_IMAGES)


def test_a_directory_that_was_deleted_since_and_has_a_namesake_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    care = carried(there := Destination(monkeypatch), [], copying=False)
    gone = File(path=str(tmp_path / "gone"), use=File.DELETED, directory=True)
    care.settle(now := Again([], {}, [], deleted=[gone]), NO_IMAGES)
    there.contents["gone"] = b""
    with pytest.raises(MigrateError, match="gone, a deleted directory .* namesake there"):
        care.settle(now, NO_IMAGES)


def test_a_tree_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, tree = Destination(monkeypatch), tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    for name in ("kept", "gone", "changes", "below/deep"):
        (tree / name).write_text("1")
    (tree / "link").symlink_to("kept")
    os.mkfifo(tree / "fifo")
    care = CarriedFiles(there.ask, there.send, copying=False, trees=[str(tree)])
    now = Again([], {}, [])
    care.copy([])
    assert there.sent[0].removed and there.sent[0].name == str(tree)
    sent = {
        str(Path(one.name).relative_to(tree)) for one in there.sent if not tmp_path.is_relative_to(one.name)
    }
    assert sent == {".", "kept", "gone", "changes", "below", "below/deep", "link"}
    there.sent.clear()
    (tree / "gone").unlink()
    (tree / "changes").write_text("2")
    (tree / "new").write_text("3")
    care.settle(now, NO_IMAGES)
    assert {(Path(one.name).name, one.removed) for one in there.sent} == {
        ("gone", True),
        ("changes", False),
        ("new", False),
        ("tree", False),  # its times, in the end
    }


def test_a_real_writer_and_a_real_lock(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    command = ["flock", str(path), "sh", "-c", "echo; sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        wanted = data(str(path), size_bytes=1, locks=["FLOCK WRITE 0 EOF"])
        found = compared.contents([wanted], Digests())[0]
        subprocess.run(["pkill", "-P", str(other.pid)], check=True)
    assert any("flock" in who for who in found.lockers) and found.content


def test_one_file_seen_twice_on_one_kernel(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("x")
    os.link(one, tmp_path / "same")
    other.write_text("x")
    assert storage.name(str(one)) == storage.name(str(tmp_path / "same")) != storage.name(str(other))


def test_mounts_are_read_as_the_kernel_writes_them() -> None:
    nfs = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - nfs4 10.0.0.1:/export rw"
    text = f"{nfs}\n7 1 0:3 / / rw - ext4 /dev/a rw\n"
    found = {one.number: (one.root, one.place, one.kind, one.source) for one in mounts.parse(text)}
    assert found == {36: ("/mnt1", "/mnt2", "nfs4", "10.0.0.1:/export"), 7: ("/", "/", "ext4", "/dev/a")}


def test_a_mapping_of_a_process_that_is_just_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says ESRCH of it then, for a moment that cannot be had on demand."""

    def ending(path: str) -> os.stat_result:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), path)

    found = Files()
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", ending)
        found.add_mappings(os.getpid())
    assert found.found == [] and found.obstacles == []
