"""What has to be written or made on the destination, and cannot be: read-only mounts, attributes, inodes."""

from __future__ import annotations

from typing import Any

import inventories as two
import pytest

from migrate.checks.reasons import notes_on_files
from migrate.checks.writable import unwritable
from migrate.errors import Reason
from migrate.pb.session_pb2 import File
from migrate.request import Along

WRITTEN = {"use": File.OPEN, "regular": True, "exists": True, "written": True, "content": b"same"}
READ = WRITTEN | {"written": False}
SOCKETS = {"use": File.SOCKET_DIRECTORY, "directory": True, "exists": True}
GHOST = {"use": File.DELETED, "stored_bytes": 4096}
TREE = {"use": File.COPIED_TREE, "directory": True, "exists": True, "stored_files": 30}


def check(here: dict[str, Any], there: dict[str, Any], path: str = "/srv/it", **options: Any) -> list[Reason]:
    mine, its = File(path=path, **here), File(path=path, **({"use": here["use"]} | there))
    return two.reasons(two.process(files=[mine]), None, two.destination(files=[its]), **options)


def same(here: dict[str, Any], **there: Any) -> dict[str, Any]:
    """The destination has it, too."""
    return {name: value for name, value in here.items() if name != "written"} | there


@pytest.mark.parametrize("here", [WRITTEN, SOCKETS, GHOST], ids=["written", "socket", "deleted"])
def test_a_read_only_mount(here: dict[str, Any]) -> None:
    reason = two.only(check(here, same(here, read_only="/srv")))
    assert (reason.code, reason.role) == ("read-only", "destination")
    assert "/srv/it" in reason.text and reason.remedy.endswith(" mount -o remount,rw /srv")


def test_what_is_only_read_may_be_read_only() -> None:
    assert check(READ, same(READ, read_only="/srv", attributes=[File.IMMUTABLE])) == []


@pytest.mark.parametrize("here", [WRITTEN, READ, SOCKETS], ids=["written", "read", "directory"])
def test_a_copy_onto_a_read_only_mount(here: dict[str, Any]) -> None:
    assert two.only(check(here, {"read_only": "/srv"}, copy_files=True)).code == "read-only"


@pytest.mark.parametrize("there", [{"read_only": "/srv"}, {"closed_directory": "/srv"}])
def test_a_tree(there: dict[str, Any]) -> None:
    assert len(check(TREE, there, copy_trees=("/srv/it",))) == 1


def test_an_immutable_file() -> None:
    reason = two.only(check(WRITTEN, same(WRITTEN, attributes=[File.IMMUTABLE])))
    assert reason.code == "immutable" and reason.remedy.endswith(" chattr -i -a /srv/it")


def test_a_log_that_is_only_appended_to() -> None:
    """chattr +a lets a program append, and lets nobody put another file there."""
    log = WRITTEN | {"append_only": True}
    there = same(WRITTEN, attributes=[File.APPEND_ONLY], size_bytes=7)
    assert check(log, there) == []
    assert len(check(WRITTEN | {"size_bytes": 7}, there)) == 1
    assert two.only(check(log, there, copy_files=True)).code == "immutable"


@pytest.mark.parametrize("here", [WRITTEN, GHOST], ids=["copied", "deleted"])
def test_a_directory_in_which_nothing_can_be_made(here: dict[str, Any]) -> None:
    reason = two.only(check(here, {"closed_directory": "/srv"}, copy_files=True))
    assert reason.code == "immutable" and reason.remedy.endswith(" /srv")


def test_what_is_missing_there_is_told_once() -> None:
    assert [one.code for one in check(WRITTEN, {"read_only": "/srv"})] == ["no-file"]


def test_inodes() -> None:
    room = {"file_system": 5, "free_bytes": 1 << 30, "free_files": 29}
    reason = two.only(check(TREE, room, copy_trees=("/srv/it",)))
    assert reason.code == "no-inodes" and "30 files" in reason.text and "df -i" in reason.remedy
    assert check(TREE, room | {"free_files": 30}, copy_trees=("/srv/it",)) == []
    del room["free_files"]
    assert check(TREE, room, copy_trees=("/srv/it",)) == []
    assert two.only(check(WRITTEN, room | {"free_files": 0}, copy_files=True)).code == "no-inodes"


def test_room_for_deleted_files() -> None:
    room = {"file_system": 5, "free_bytes": 4095, "free_files": 100}
    assert two.only(check(GHOST, room)).code == "no-file-space"


def test_a_deleted_directory_whose_name_the_copies_would_take() -> None:
    """The process has made another one of that name, and uses what is in it."""
    gone = {"path": "/srv/it", "use": File.DELETED, "directory": True, "exists": True}
    inside = {"path": "/srv/it/data", "use": File.OPEN, "regular": True, "written": True, "exists": True}

    def found(**used: Any) -> list[Reason]:
        files = [File(**gone), File(**(inside | used))]
        there = two.destination(files=[File(path="/srv/it", use=File.DELETED)])
        return two.reasons(two.process(files=files), None, there, copy_files=True)

    reason = two.only(found())
    assert (reason.code, reason.role) == ("deleted-name-taken", "destination")
    assert "--copy-files would make" in reason.text and "Rename" not in reason.remedy
    assert two.only(found(path="/srv/it", regular=False, directory=True)).code == "deleted-name-taken"
    assert found(path="/srv/it.data") == []


def test_a_deleted_directory_whose_name_is_taken_there() -> None:
    """CRIU would take that one for it, and remove it."""
    gone = GHOST | {"directory": True}
    reason = two.only(check(gone, {"exists": True}))
    assert (reason.code, reason.role) == ("deleted-name-taken", "destination") and "/srv/it" in reason.text
    assert check(gone, {}) == []
    assert check(GHOST, {"exists": True}) == []
    # A tree is copied with what has the name here, and what is there is put aside.
    assert check(gone, {"exists": True}, copy_trees=("/srv",)) == []
    assert two.only(check(gone | {"exists": True}, {}, copy_trees=("/srv",))).code == "deleted-name-taken"


def test_a_note_about_attributes_that_stay_behind() -> None:
    mine = File(path="/srv/log", attributes=[File.APPEND_ONLY], **WRITTEN)
    there = two.destination(files=[File(path="/srv/log", use=File.OPEN)])
    process = two.process(files=[mine])
    (note,) = notes_on_files(process, there, Along(copy_files=True))
    assert "(a, see lsattr): /srv/log" in note
    assert notes_on_files(process, there, Along()) == []


def test_nothing_is_said_where_nothing_was_asked() -> None:
    assert unwritable(File(path="/x", **WRITTEN), File(path="/x", **same(WRITTEN)), made=True) is None
