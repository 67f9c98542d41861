"""The tree runs while its files are compared: what it has removed or renamed meanwhile is looked at anew.

On storage that both hosts share the destination finds nothing at a path that was right a moment ago. What it says
of such a file is of no file of the process any more, and no reason against the move.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from migrate.checks import file_differences
from migrate.checks import files as checks_files
from migrate.errors import MigrateError
from migrate.files.content import Digests
from migrate.pb.session_pb2 import File, HostInventory, ProcessInventory

#: How often in all. What a program renames without a pause is told as it was found at last.
LOOKS = 4


class Comparing(Protocol):
    """What compares files: :class:`migrate.origin.carried_files.CarriedFiles`."""

    def compare(self, process: ProcessInventory, there: HostInventory) -> None:
        """See there."""

    def answers(self, files: list[File]) -> list[File]:
        """See there."""


def compare(
    files: Comparing, process: ProcessInventory, there: HostInventory, now: Callable[[], list[File]]
) -> None:
    """Compare the files of *process* with those *there*; of both, what has changed meanwhile is put right.

    :param now: looks at the files of the process anew.
    :raises MigrateError: a file cannot be read here, or is gone each time.
    """
    for left in reversed(range(LOOKS)):
        try:
            files.compare(process, there)
            if not left or not any(_outdated(process, there)):
                break
        except MigrateError as error:
            if not left or not is_gone(error):
                raise
        _look(files, process, there, now())
    _without_those_gone(process)


class Reading:
    """Reads *wanted* by *digest* while the destination does; that one is gone is told when it has answered.

    Who looks anew asks again, and has to have heard the answer before.
    """

    def __init__(self, digest: Callable[[File], bytes], wanted: list[File]) -> None:
        self._digest, self._wanted = digest, wanted
        self._gone: list[MigrateError] = []

    def __call__(self) -> None:
        """Read them."""
        for one in self._wanted:
            try:
                self._digest(one)
            except MigrateError as error:
                if not is_gone(error):
                    raise
                self._gone.append(error)

    def require(self) -> None:
        """:raises MigrateError: one was gone."""
        if self._gone:
            raise self._gone[0]


def not_there(compared: list[tuple[File, File]]) -> list[str]:
    """Those that the destination does not see as they are here now: there, or gone, as on shared storage."""
    return [
        one.path
        for one, its in compared
        if not file_differences.same_place(one, its) and (one.exists or its.exists)
    ]


def gone_at(path: str, copy: Callable[[str], None]) -> bool:
    """Whether *copy* found nothing at *path*, and there is nothing. :raises MigrateError, OSError: as *copy*."""
    try:
        copy(path)
    except (MigrateError, FileNotFoundError) as error:
        if not is_gone(error) or os.path.lexists(path):
            raise
        return True
    return False


def others(paths: Iterable[str], now: Mapping[str, File], digests: Digests) -> list[File]:
    """Those of *paths* that have other content than when last read, or are no files any more, as *now*."""
    changed = (path for path in paths if not os.path.isfile(path) or digests.changed(path))  # noqa: PTH113
    return [now.get(path, File(path=path, use=File.NEIGHBOUR)) for path in changed]


def is_gone(error: Exception) -> bool:
    """Whether *error* says that there is no such file, on this host."""
    return isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError)


def _outdated(process: ProcessInventory, there: HostInventory) -> Iterator[File]:
    """Files that are others there, or none, and here another one has their name by now, or none."""
    for here, its in checks_files.pairs(process, there):
        if here.regular and file_differences.difference(here, its, copying=True) and not _has_its_name(here):
            yield here


def _has_its_name(here: File) -> bool:
    try:
        status = os.stat(here.path)  # noqa: PTH116
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (here.device, here.inode)


def _look(files: Comparing, process: ProcessInventory, there: HostInventory, now: list[File]) -> None:
    """Put what is *now* into both; the destination is asked for what it has not been asked for, or had not."""
    before = {(one.path, one.use): (one.device, one.inode) for one in process.files}
    known = {(one.path, one.use): one for one in there.files if one.exists}
    keys = {(one.path, one.use): (one.device, one.inode) for one in now}
    anew = [one for one in now if (key := (one.path, one.use)) not in known or before.get(key) != keys[key]]
    for one in files.answers(anew):
        known[one.path, one.use] = one
    del process.files[:], there.files[:]
    process.files.extend(now)
    there.files.extend(one for key, one in known.items() if key in keys)


def _without_those_gone(process: ProcessInventory) -> None:
    """Nobody will want a file beside the open ones that is none any more."""
    kept = [one for one in process.files if one.use != File.NEIGHBOUR or os.path.lexists(one.path)]
    if len(kept) < len(process.files):
        del process.files[:]
        process.files.extend(kept)
