"""What was copied to this host, in the journal; taken back through the directories in which it was done.

No symbolic link is followed, and a directory that is another one than at the copy is left alone: see
:mod:`migrate.files.beneath`. Journals of older versions do not say which directory it was.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import stat
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from migrate.errors import MigrateError
from migrate.files import beneath
from migrate.journal.entry import Entry
from migrate.processes import users

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Copied(Entry):
    """A file at *path* was put there, or something there moved away or removed.

    :ivar backup: what was there, under another name beside it; "": nothing was.
    :ivar folder: the directory of both, see :func:`migrate.files.beneath.identity`; "": not known.
    :ivar aside: the directory that is now *backup*, likewise; "": it is none, or not known.
    """

    word: ClassVar[str] = "copied"
    path: str
    backup: str
    folder: str = ""
    aside: str = ""

    def undo(self) -> str:
        """See :class:`Entry`: what was there comes back, or there is nothing again. Else nothing has changed."""
        path = Path(self.path)
        with _folder(path, self.folder) as folder:
            if folder is None:
                return f"{path}: its directory is gone"
            with beneath.acting_as_owner(folder, ours=True), contextlib.suppress(FileNotFoundError):
                made = Path(self.backup).name if self.backup else path.name
                # Looked at first: of a file system that is read-only one hears that, and not that nothing is there.
                os.stat(made, dir_fd=folder, follow_symlinks=False)
                if self.backup:
                    os.rename(made, path.name, src_dir_fd=folder, dst_dir_fd=folder)  # noqa: PTH104
                else:
                    os.unlink(made, dir_fd=folder)  # noqa: PTH108
        return f"{path} as before"

    def forget(self) -> None:
        """The process runs here: what was there before is not needed any more.

        :raises MigrateError, OSError: it cannot be removed.
        """
        if not self.backup:
            return
        with _folder(Path(self.path), self.folder) as folder:
            if folder is not None:
                with _telling_whose(self.backup), contextlib.suppress(FileNotFoundError):
                    _remove(Path(self.backup).name, folder, self.aside)


@dataclass(frozen=True)
class Directory(Entry):
    """The directory *path* was made for a file that is copied.

    :ivar folder: the directory that it is in, as for :class:`Copied`.
    """

    word: ClassVar[str] = "directory"
    path: str
    folder: str = ""

    def undo(self) -> str:
        """See :class:`Entry`: it goes, unless something else is in it by now."""
        path = Path(self.path)
        with contextlib.suppress(OSError), _folder(path, self.folder) as folder:
            if folder is not None:
                with beneath.acting_as_owner(folder, ours=True):
                    os.rmdir(path.name, dir_fd=folder)  # noqa: PTH106
        return f"{path} removed if it was empty"


def _remove(name: str, folder: int, known_as: str) -> None:
    if stat.S_ISDIR(beneath.mode(folder, name)):
        _require_unused(name, folder)
        _empty(name, folder, known_as)
    with beneath.acting_as_owner(folder, ours=True):
        _remove_one(name, folder)


def _empty(name: str, folder: int, known_as: str) -> None:
    """Remove what is in the directory *name* with the rights of its own owner, who need not be that of *folder*.

    Only if it is the one that was put aside: the owner of *folder* can give another one of root's that name.
    """
    below = os.open(name, _DIRECTORY, dir_fd=folder)
    try:
        if beneath.identity(below) == known_as:
            with beneath.acting_as_owner(below, ours=True):
                for one in os.listdir(below):  # noqa: PTH208
                    _remove_one(one, below)
    finally:
        os.close(below)


def _remove_one(name: str, folder: int) -> None:
    if stat.S_ISDIR(beneath.mode(folder, name)):
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)  # noqa: PTH108


@contextlib.contextmanager
def _telling_whose(path: str) -> Generator[None, None, None]:
    """Around the removal of *path*, which root does with the rights of owners of directories."""
    try:
        yield
    except PermissionError as error:
        raise MigrateError(
            f"{error.filename} in it cannot be removed with the rights of who owns the directory above it or"
            f" {Path(path).parent}: some of it is another user's; look at it, and remove it: rm -r"
            f" {shlex.quote(path)}"
        ) from error


def _require_unused(name: str, folder: int) -> None:
    """What somebody uses there since, or has mounted in it or from it, stays: it would lose its files."""
    path = os.path.realpath(f"/proc/self/fd/{folder}/{name}")
    if mounts := users.mounted(path):
        raise MigrateError(
            f"something is mounted: {', '.join(mounts[:3])}; it was left as it is, with all in it"
        )
    if found := users.of(path):
        raise MigrateError(f"it is used by {', '.join(found[:3])}: it was left as it is, with all in it")


@contextlib.contextmanager
def _folder(path: Path, known_as: str) -> Generator[int | None, None, None]:
    """The directory of *path*, which has to be the one that was *known_as*; None when it is gone."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(beneath.directory(path.parent))
        except FileNotFoundError:
            yield None
            return
        if known_as not in ("", beneath.identity(folder)):
            raise MigrateError(f"{path.parent} is another directory now: {path.name} was not put back in it")
        yield folder
