"""Files that the process needs on the destination."""

from __future__ import annotations

from typing import Any

from inventories import (
    destination,
    mapped,
    only,
    process,
    reasons,
)

from migrate.checks.reasons import files_to_copy
from migrate.errors import Reason
from migrate.pb.session_pb2 import (
    File,
    HostInventory,
)


def with_file(here: File, there: File | None, **options: Any) -> list[Reason]:
    return reasons(process(files=[here]), None, destination(files=[there] if there else []), **options)


def test_missing_files() -> None:
    library = mapped()
    reason = only(with_file(library, None))
    assert (reason.code, reason.role) == ("no-file", "destination")
    assert library.path in reason.text and "dpkg -S" in reason.remedy
    assert with_file(library, None, copy_files=True) == []


def test_missing_directory() -> None:
    directory = File(path="/srv", use=File.WORKING_DIRECTORY, directory=True)
    reason = only(with_file(directory, None))
    assert reason.code == "no-working-directory" and "mkdir -p /srv" in reason.remedy
    assert with_file(directory, None, copy_files=True) == []
    root = File(path="/jail", use=File.ROOT_DIRECTORY, directory=True)
    reason = only(with_file(root, None, copy_files=True))
    assert reason.code == "no-directory" and "--copy-files" not in reason.remedy


def test_directories_are_made_before_what_is_in_them() -> None:
    paths = ("/srv/a/b/file", "/srv/a/b", "/srv/a")
    files = [
        File(path=path, use=File.OPEN, directory="file" not in path, regular="file" in path) for path in paths
    ]
    found = files_to_copy(process(files=files), HostInventory())
    assert [one.path for one in found] == ["/srv/a", "/srv/a/b", "/srv/a/b/file"]


def test_another_build() -> None:
    reason = only(with_file(mapped(), mapped(build_id=b"\xcd" * 20), copy_files=True))
    assert reason.code == "other-build" and "cdcdcd" in reason.text and "ababab" in reason.text
    assert only(with_file(mapped(), mapped(build_id=b""))).code == "other-build"


def test_build_id_decides_over_size() -> None:
    assert with_file(mapped(), mapped(size_bytes=1)) == []
    assert only(with_file(mapped(build_id=b""), mapped(build_id=b"", size_bytes=1))).code == "other-file"


def log(**more: Any) -> File:
    fields = {"use": File.OPEN, "size_bytes": 7, "exists": True, "regular": True}
    return File(path="/var/log/a.log", **(fields | more))


def test_open_files_go_by_size() -> None:
    assert with_file(log(), log()) == []
    assert "7 bytes" in only(with_file(log(), log(size_bytes=8))).text
    # CRIU does not compare a log that is only appended to.
    assert with_file(log(append_only=True, written=True), log(size_bytes=8)) == []


def test_what_helps_where_a_file_that_is_only_read_differs() -> None:
    """What grows has another size each time that it is copied by hand."""
    reason = only(with_file(log(), log(size_bytes=8), copy_files=True))
    assert "rsync -a /var/log/a.log" in reason.remedy
    assert "remove the one there instead, and pass --copy-files" in reason.remedy


def test_copying_replaces_only_what_the_process_writes() -> None:
    assert with_file(log(written=True), log(size_bytes=8), copy_files=True) == []
    assert only(with_file(log(), log(size_bytes=8), copy_files=True)).code == "other-file"
    here = process(files=[log(written=True), mapped(), mapped("/usr/lib/new.so")])
    there = destination(files=[log(size_bytes=8), mapped(build_id=b"\xcd" * 20)])
    assert [one.path for one in files_to_copy(here, there)] == ["/var/log/a.log", "/usr/lib/new.so"]


def test_one_reason_for_a_file_used_twice() -> None:
    files = [mapped(use=File.EXECUTABLE), mapped()]
    assert len(reasons(process(files=files), None, destination(files=[]))) == 1


def test_kind_of_file() -> None:
    reason = only(with_file(log(), log(regular=False, directory=True)))
    assert reason.text == "/var/log/a.log is a directory there and a file at the origin"


def test_a_directory_that_is_being_read() -> None:
    """Its position is of one file system: on another one names are left out, or come twice."""
    folder = {"path": "/srv/many", "use": File.OPEN, "exists": True, "directory": True}
    here, there = File(storage="a", read_in_part=True, **folder), File(storage="b", **folder)
    reason = only(with_file(here, there))
    assert (reason.code, reason.role) == ("directory-read", "origin") and "rewinddir" in reason.remedy
    assert only(with_file(here, None, copy_files=True)).code == "directory-read"
    assert only(with_file(here, there, copy_trees=("/srv",))).code == "directory-read"
    assert only(with_file(File(read_in_part=True, **folder), File(**folder))).code == "directory-read"
    assert with_file(here, File(storage="a", **folder)) == []
    assert with_file(File(storage="a", **folder), there) == []
