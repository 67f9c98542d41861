"""The destination's part of ``--copy-files`` and ``--copy-tree``: puts each file in its place, whole or not at all.

What was there is kept beside it until the migration has ended, so that an undo can put it back. No symbolic link
is followed, and each directory is used with the rights of its owner: see :mod:`migrate.files.beneath`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Collection
from pathlib import Path

from migrate import place
from migrate.errors import MigrateError
from migrate.files import aside, beneath, leases, opened
from migrate.files.copies import ATTRIBUTES
from migrate.files.entries import Copied, Directory
from migrate.journal.journal import Journal
from migrate.link.payloads import Piece
from tcpcp.kernel.writing import write_all

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: A program with these bits runs with its owner's rights. What a user brought along shall not.
_SET_ID = stat.S_ISUID | stat.S_ISGID


class FileTaker:
    """Takes the pieces; paths and offsets come from the network and are checked."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._names = (f".migrate-{journal.migration_id}-{number}" for number in itertools.count())
        self._file = -1
        self._new = ""
        self._path = Path()
        #: What was there before, under which name it is kept; "": nothing was, or it was a link.
        self._kept: dict[Path, str] = {}
        #: Which files have a lease, as far as has been asked.
        self._leased: Collection[str] | None = None
        self._made: dict[Path, str] = {}
        self._put_here: dict[Path, str] = {}

    def take(self, chunk: Piece) -> None:
        """Take one piece; the last one of a file puts it in its place.

        :raises MigrateError: a bad path, a link in it, a gap, no space, no permission; the file there is as it was.
        """
        path = Path(chunk.name)
        if not place.is_absolute(chunk.name):
            raise self._error(f"not a path to copy to: {chunk.name[:200]!r}")
        try:
            self._take(path, chunk)
        except OSError as error:
            hint = "Look at the space and the permissions there, or put the file there yourself."
            raise self._error(f"cannot write {path}: {error.strerror}", hint) from error

    def _take(self, path: Path, chunk: Piece) -> None:
        if chunk.removed:
            self._remove(path)
        elif chunk.hard_link:
            self._make_hard_link(path, Path(chunk.hard_link))
        elif stat.S_ISDIR(chunk.mode):
            self._make_directory(path, chunk)
        elif stat.S_ISLNK(chunk.mode):
            self._make_link(path, chunk)
        elif chunk.mode & _SET_ID:
            raise self._error(
                f"{path} is a program that runs as its owner: it is not copied", "Install it there."
            )
        else:
            self._write(path, chunk)
            if chunk.last:
                self._put(path, chunk)

    # --- files -------------------------------------------------------------------------------------------

    def _write(self, path: Path, chunk: Piece) -> None:
        if chunk.offset == 0:
            self.close()
            self._make_parents(path)
            # Not the file's own name with more behind it: that may be as long as a name can be.
            self._new = next(self._names)
            with beneath.directory(path.parent) as folder:
                self._did(folder, path.with_name(self._new), backup="")
                with self._acting(folder, path):
                    self._file = os.open(self._new, _NEW, 0o600, dir_fd=folder)
            self._path = path
        if self._file < 0 or path != self._path or os.lseek(self._file, 0, os.SEEK_CUR) != chunk.offset:
            raise self._error(f"{path}: a piece that does not follow the one before")
        if not chunk.data.strip(b"\0"):
            # A hole, as it most likely was: a large file that is mostly empty takes no more room than before.
            os.truncate(self._file, chunk.offset + len(chunk.data))
            os.lseek(self._file, len(chunk.data), os.SEEK_CUR)
            return
        write_all(self._file, chunk.data)

    def _put(self, path: Path, chunk: Piece) -> None:
        _dress(self._file, chunk)
        self._put_here[path] = beneath.identity(self._file)
        self.close()
        with beneath.directory(path.parent) as folder:
            self._into_place(folder, self._new, path)

    def _into_place(self, folder: int, made: str, path: Path) -> None:
        """Let *made*, in *folder*, take the place of *path*, of which what is there is kept."""
        self._require_unwritten(folder, path)
        self._keep(folder, path)
        with self._acting(folder, path):
            os.rename(made, path.name, src_dir_fd=folder, dst_dir_fd=folder)  # noqa: PTH104

    def _keep(self, folder: int, path: Path) -> None:
        """Give what is there a second name for the way back; only the first time, when it is not ours."""
        if path in self._kept:
            return
        kept = next(self._names)
        there = beneath.mode(folder, path.name)
        if there and not stat.S_ISREG(there) and not stat.S_ISLNK(there):
            raise self._error(f"{path} is no regular file there: it is not replaced", "Remove it there.")
        self._did(folder, path, backup=str(path.with_name(kept)) if there else "")
        self._kept[path] = kept if stat.S_ISREG(there) else ""
        if there:
            # As root: an owner of a directory may not link what others own in it (fs.protected_hardlinks).
            os.link(path.name, kept, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)

    def require_unwritten(self) -> None:
        """Make sure, when all has arrived, that nobody here writes what was replaced, or what was put in its place.

        Nobody knows yet what is in directories that we have made.

        :raises Taken: somebody does. An undo puts back the very file that was there.
        """
        self._leased = None
        for path, kept in self._kept.items():
            if path.parent not in self._made:
                with contextlib.suppress(FileNotFoundError), beneath.directory(path.parent) as folder:
                    self._require_unwritten(folder, path)
                    if kept:
                        self._require_unwritten(folder, path, kept)

    def _require_unwritten(self, folder: int, path: Path, kept: str = "") -> None:
        """Nobody here shall go on with a file that is none any more.

        :param kept: the name that the file has now which was at *path* before.
        """
        if stat.S_ISREG(beneath.mode(folder, kept or path.name)):
            if self._leased is None:
                self._leased = leases.held()
            opened.require_unwritten(kept or path.name, folder, path, self._leased)

    def _make_hard_link(self, path: Path, first: Path) -> None:
        """One more name of a file that we have put in its place, and of no other."""
        self._make_parents(path)
        made = next(self._names)
        with beneath.directory(path.parent) as folder:
            self._did(folder, path.with_name(made), backup="")
            with beneath.directory(first.parent) as its:
                # As root: an owner of a directory may not link what others own in it (fs.protected_hardlinks).
                os.link(first.name, made, src_dir_fd=its, dst_dir_fd=folder, follow_symlinks=False)
            if self._put_here.get(first) != beneath.identity_of(folder, made):
                os.unlink(made, dir_fd=folder)  # noqa: PTH108
                raise self._error(f"{first} is not what was copied there: {path} is not made a name of it")
            self._into_place(folder, made, path)
        self._put_here[path] = self._put_here[first]

    def _make_link(self, path: Path, chunk: Piece) -> None:
        self._make_parents(path)
        made = next(self._names)
        with beneath.directory(path.parent) as folder:
            self._did(folder, path.with_name(made), backup="")
            with self._acting(folder, path):
                os.symlink(chunk.data, os.fsencode(made), dir_fd=folder)
            os.chown(made, chunk.uid, chunk.gid, dir_fd=folder, follow_symlinks=False)
            times = chunk.accessed_ns, chunk.modified_ns
            os.utime(made, ns=times, dir_fd=folder, follow_symlinks=False)
            self._into_place(folder, made, path)

    def _remove(self, path: Path) -> None:
        """What the origin no longer has, or never had, in a tree that is copied."""
        with contextlib.suppress(FileNotFoundError), beneath.directory(path.parent) as folder:
            if stat.S_ISDIR(beneath.mode(folder, path.name)):
                self._put_aside(folder, path)
                return
            self._require_unwritten(folder, path)
            self._keep(folder, path)
            with self._acting(folder, path):
                os.unlink(path.name, dir_fd=folder)  # noqa: PTH108

    def _put_aside(self, folder: int, path: Path) -> None:
        """A directory with all that is in it."""
        if path not in self._made:
            aside.require_unused(path)
        kept = next(self._names)
        known_as = beneath.identity_of(folder, path.name)
        self._did(folder, path, backup=str(path.with_name(kept)), known_as=known_as)
        with self._acting(folder, path):
            aside.rename(path, kept, folder)

    # --- directories -------------------------------------------------------------------------------------

    def _make_parents(self, path: Path) -> None:
        """Those that nobody described: root's, open to all."""
        for parent in reversed(path.parents[:-1]):
            self._make_directory(parent, None)

    def _make_directory(self, path: Path, chunk: Piece | None) -> None:
        if chunk is not None:
            self._make_parents(path)
        with beneath.directory(path.parent) as folder:
            there = beneath.mode(folder, path.name)
            ours = stat.S_ISDIR(there) and path in self._made
            if there and (chunk is None or not ours):
                return  # whatever it is: who needs it as a directory will see
            if not there:
                self._journal.did(Directory(str(path), beneath.identity(folder)))
                with self._acting(folder, path):
                    os.mkdir(path.name, 0o700, dir_fd=folder)  # noqa: PTH102
            made = os.open(path.name, _OPEN_DIRECTORY, dir_fd=folder)
        try:
            if not there:
                self._made[path] = beneath.identity(made)
            # One that is there is ours, and its mode or owner has changed at the origin; else somebody else put it.
            if self._made[path] == beneath.identity(made):
                _dress(made, chunk or Piece(str(path), mode=0o755))
        finally:
            os.close(made)

    # --- all ---------------------------------------------------------------------------------------------

    def _did(self, folder: int, path: Path, *, backup: str, known_as: str = "") -> None:
        self._journal.did(Copied(str(path), backup, beneath.identity(folder), known_as))

    def _acting(self, folder: int, path: Path) -> contextlib.AbstractContextManager[None]:
        """What is done to the name of *path* is done as the owner of *folder*, in which it is."""
        ours = self._made.get(path.parent) == beneath.identity(folder)
        return beneath.acting_as_owner(folder, ours=ours)

    def close(self) -> None:
        """Let go of a file that is not complete."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @staticmethod
    def _error(text: str, hint: str = "") -> MigrateError:
        return MigrateError(text, hint=hint)


def _dress(made: int, chunk: Piece) -> None:
    """Give the new file or directory owner, mode, attributes and times of the origin's."""
    os.fchown(made, chunk.uid, chunk.gid)
    os.fchmod(
        made, stat.S_IMODE(chunk.mode) & ~_SET_ID if stat.S_ISREG(chunk.mode) else stat.S_IMODE(chunk.mode)
    )
    for name, value in chunk.attributes.items():
        if name.startswith(ATTRIBUTES):
            os.setxattr(made, name, value)
    if chunk.modified_ns:
        os.utime(made, ns=(chunk.accessed_ns, chunk.modified_ns))
