"""The tree runs while its files are compared; what it removes or renames then is no reason against the move."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from migrate.checks import file_differences, files
from migrate.errors import MigrateError
from migrate.files.content import Digests
from migrate.inventory import compared, storage
from migrate.inventory.described import describe
from migrate.inventory.open_files import Again
from migrate.link.payloads import Piece
from migrate.origin import looked_anew
from migrate.origin.carried_files import CarriedFiles
from migrate.pb.session_pb2 import Compare, Compared, File, HostInventory, ProcessInventory


def found(path: Path, use: File.Use = File.OPEN, **more: object) -> File:
    one = describe(str(path), use, path.stat())
    one.written, one.storage = use == File.OPEN, storage.name(str(path))
    return one


def made(path: Path, text: str = "x") -> Path:
    path.write_text(text)
    return path


class Both:
    """Both hosts see the same directory, as the destination answers; a third has nothing of it."""

    def __init__(self, *, shared: bool = True, copying: bool = False) -> None:
        self.shared, self.sent, self.asked = shared, list[Piece](), list[str]()
        self.files = CarriedFiles(self.ask, self.sent.append, copying=copying)
        self._owed = False
        self.process, self.there = ProcessInventory(), HostInventory()

    def ask(self, question: Compare, meanwhile: Callable[[], None]) -> Compared:
        assert not self._owed, "asked before the answer was heard"
        self._owed = True
        meanwhile()
        self._owed = False
        self.asked += [one.path for one in question.files]
        if not self.shared:
            return Compared(files=[File(path=one.path, use=one.use) for one in question.files])
        return Compared(files=compared.contents(list(question.files), Digests()))

    def look(self, *now: File) -> None:
        """The destination answers when the process was read."""
        self.process.files.extend(now)
        self.there.files.extend(self.ask(Compare(files=now), lambda: None).files)

    def compare(self, now: Callable[[], list[File]]) -> None:
        looked_anew.compare(self.files, self.process, self.there, now)

    def differences(self) -> list[str]:
        pairs = files.pairs(self.process, self.there)
        return [here.path for here, its in pairs if file_differences.difference(here, its, copying=False)]


def nothing_new() -> list[File]:
    raise AssertionError("looked at anew without need")


def test_a_file_that_was_renamed_before_the_destination_looked(tmp_path: Path) -> None:
    hosts, temporary = Both(), made(tmp_path / "temp")
    kept, here = found(made(tmp_path / "kept")), found(temporary)
    final = temporary.rename(tmp_path / "final")
    hosts.look(kept, here)
    assert hosts.differences() == [str(temporary)]
    hosts.asked.clear()
    hosts.compare(lambda: [kept, found(final)])
    assert hosts.differences() == [] and [one.path for one in hosts.process.files] == [kept.path, str(final)]
    assert set(hosts.asked) == {str(final)}


def test_a_file_in_whose_place_another_one_is(tmp_path: Path) -> None:
    hosts, here = Both(), found(made(tmp_path / "file"))
    made(tmp_path / "new", "another").rename(here.path)
    hosts.look(here)
    assert hosts.differences() == [here.path]
    hosts.compare(lambda: [found(Path(here.path))])
    assert hosts.differences() == []


def test_what_is_still_there_and_missing_on_the_destination_is_missing(tmp_path: Path) -> None:
    hosts, here = Both(shared=False), found(made(tmp_path / "file"))
    hosts.look(here)
    hosts.compare(nothing_new)
    assert hosts.differences() == [here.path]


def test_what_is_renamed_without_a_pause_is_told_in_the_end(tmp_path: Path) -> None:
    hosts, path, looks = Both(), tmp_path / "file", []

    def now() -> list[File]:
        looks.append(found(made(path)))
        path.rename(tmp_path / "elsewhere")
        return looks[-1:]

    hosts.look(*now())
    hosts.compare(now)
    assert hosts.differences() == [str(path)] and len(looks) == looked_anew.LOOKS


def test_a_file_beside_that_goes_away(tmp_path: Path) -> None:
    """It was there when the process was read, and is gone when it is to be compared; nobody had it open."""
    hosts = Both(shared=False, copying=True)
    here, beside = found(made(tmp_path / "log")), found(made(tmp_path / "base"), File.NEIGHBOUR)
    hosts.look(here, beside)
    os.unlink(beside.path)  # noqa: PTH108
    hosts.compare(lambda: [here])
    assert [one.path for one in hosts.process.files] == [here.path]


def test_of_storage_that_both_see_what_is_beside_is_not_read(tmp_path: Path) -> None:
    hosts = Both(copying=True)
    here, beside = found(made(tmp_path / "log")), found(made(tmp_path / "base"), File.NEIGHBOUR)
    hosts.look(here, beside)
    os.unlink(beside.path)  # noqa: PTH108
    hosts.files.compare(hosts.process, hosts.there)
    # And what is made there until the freeze the destination has as well.
    made(tmp_path / "base2")
    hosts.files.settle(Again([here], {}, []), tmp_path)


def test_what_is_beside_on_shared_storage_and_changes_between_all_looks(tmp_path: Path) -> None:
    """The destination saw another one in its place, and so it was not known to be shared."""
    hosts = Both(copying=True)
    here = found(made(tmp_path / "log"))
    replaced, gone = (found(made(tmp_path / name), File.NEIGHBOUR) for name in ("manifest", "base"))
    for one in replaced, gone:
        made(tmp_path / "new", "y").rename(one.path)
    hosts.look(here, replaced, gone)
    hosts.files.compare(hosts.process, hosts.there)
    made(tmp_path / "new", "other").rename(replaced.path)
    os.unlink(gone.path)  # noqa: PTH108
    hosts.files.settle(Again([here], {}, []), tmp_path)
    hosts.shared = False
    with pytest.raises(MigrateError, match="manifest has changed or is gone since the check"):
        hosts.files.settle(Again([here], {}, []), tmp_path)


def test_a_file_that_is_renamed_before_it_is_copied(tmp_path: Path) -> None:
    """It goes there under the name that it has in the freeze."""
    hosts, temporary = Both(shared=False, copying=True), made(tmp_path / "temp")
    here = found(temporary)
    hosts.look(here)
    hosts.compare(nothing_new)
    final = temporary.rename(tmp_path / "final")
    hosts.files.copy([here])
    assert [(one.name, one.removed) for one in hosts.sent] == [(str(temporary), True)]
    hosts.files.settle(Again([found(final)], {str(temporary): str(final)}, []), tmp_path)
    assert [one.name for one in hosts.sent if one.data] == [str(final)]


def test_what_cannot_be_copied_for_another_reason_is_told(tmp_path: Path) -> None:
    hosts, here = Both(shared=False, copying=True), found(made(tmp_path / "temp"))
    (tmp_path / "temp").rename(tmp_path / "file")
    (tmp_path / "temp").symlink_to("nowhere")
    with pytest.raises((MigrateError, FileNotFoundError)):
        hosts.files.copy([here])
