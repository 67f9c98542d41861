"""What a container has written to its root: packed while it runs, and later what has changed since.

The image below is the same on both hosts. The upper directory of an overlay says what is different from it; it is
read through the overlay, which knows where contents are. The container may run meanwhile, and it is not trusted: no
link of its own making is followed, or it could have files of this host packed.

What changes a file sets its time (ctime). That is not so for memory that is mapped shared, and not for what was
written in the moment in which it was looked at: that is packed again.

Source: Documentation/filesystems/overlayfs.rst, whiteouts and opaque directories.
"""

from __future__ import annotations

import base64
import errno
import io
import os
import stat
import tarfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from migrate.errors import MigrateError
from migrate.files.content import SETTLED_NS
from migrate.files.layer import ATTRIBUTE, KIND, OPAQUE, REMOVED, folder_at
from migrate.files.stream import Sending

_OVERLAY = "trusted.overlay."
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: A pipe that has taken the place of a file is not waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TOP = "."
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was at one name in the upper directory.

    :ivar settled: its time is so old that it will be another one when it is changed again.
    :ivar opaque: a directory that hides the one of the image.
    """

    inode: tuple[int, int]
    mode: int
    links: int
    device: int
    size: int
    changed_ns: int
    settled: bool
    opaque: bool

    @classmethod
    def at(cls, path: str) -> _Seen:
        """What is at *path*. :raises OSError: nothing."""
        status = os.lstat(path)  # noqa: PTH116
        newest = max(status.st_mtime_ns, status.st_ctime_ns)
        return cls(
            (status.st_dev, status.st_ino),
            status.st_mode,
            status.st_nlink,
            status.st_rdev,
            status.st_size,
            status.st_ctime_ns,
            newest + SETTLED_NS < time.time_ns(),
            stat.S_ISDIR(status.st_mode) and _OVERLAY + "opaque" in os.listxattr(path, follow_symlinks=False),
        )

    @property
    def removed(self) -> bool:
        """Whether it says that what the image has there is gone."""
        return stat.S_ISCHR(self.mode) and self.device == 0


class Written:
    """That of one directory.

    :param upper: that which is written to, of the overlay that is mounted at *merged*; "" for an ordinary directory
        at *merged*, of which all is packed.
    """

    def __init__(self, upper: str, merged: str) -> None:
        self._upper, self._merged = upper or merged, merged
        #: What has been packed, by its name in the directory.
        self._packed: dict[str, _Seen] = {}
        #: Those that were ever said to be written through shared memory.
        self._mapped: set[str] = set()

    def pack(self, to: BinaryIO | Sending, mapped: Collection[str] = (), *, running: bool = False) -> None:
        """Write an archive of what is new, has changed, or is gone since the last one; the first has all.

        :param mapped: files, by their paths on this host, whose times do not tell whether they have changed.
        :param running: it may be written to meanwhile: what goes is left out. The next archive has what is then.
        :raises MigrateError: it cannot be read, or holds what cannot be carried.
        """
        try:
            now = dict(self._found(running=running))
            gone = sorted(self._packed.keys() - now.keys(), key=len, reverse=True)
            self._mapped |= {one.removeprefix(f"{self._merged}/") for one in mapped}
            some = self._changed(now)
            some |= {os.path.dirname(one) or _TOP for one in (*gone, *some)} & now.keys()  # noqa: PTH120
            with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for name in gone:
                    archive.addfile(_removed(name))
                    del self._packed[name]
                self._add_all(archive, {name: now[name] for name in now if name in some}, running=running)
        except OSError as error:
            hint = "Look at the space for the images there, and at the container's storage."
            raise MigrateError(
                f"what the container has written cannot be read: {error}", hint=hint
            ) from error

    def _changed(self, now: dict[str, _Seen]) -> set[str]:
        """Names of what has to be packed. A file that is packed again is another one there, by all its names."""
        found = {
            name for name, seen in now.items() if name in self._mapped or not self._is_as_packed(name, seen)
        }
        inodes = {now[name].inode for name in found if now[name].links > 1}
        found |= {name for name, seen in now.items() if seen.links > 1 and seen.inode in inodes}
        hidden = tuple(f"{name}/" for name in found if now[name].opaque and not self._was_opaque(name))
        return found | {name for name in now if name.startswith(hidden)} if hidden else found

    def _is_as_packed(self, name: str, seen: _Seen) -> bool:
        packed = self._packed.get(name)
        return packed is not None and packed.settled and packed == seen

    def _was_opaque(self, name: str) -> bool:
        return name in self._packed and self._packed[name].opaque

    def _found(self, *, running: bool) -> Iterator[tuple[str, _Seen]]:
        """All that is there, a directory before what is in it."""

        def failed(error: OSError) -> None:
            if not (running and _gone(error)):
                raise error

        yield _TOP, _Seen.at(self._upper)
        for directory, below, names, folder in os.fwalk(self._upper, onerror=failed):
            within = os.path.relpath(directory, self._upper)
            for name in sorted((*below, *names)):
                try:
                    seen = _Seen.at(f"/proc/self/fd/{folder}/{name}")
                except OSError as error:
                    failed(error)
                    continue
                if not stat.S_ISSOCK(seen.mode):  # CRIU makes its own sockets again
                    yield os.path.normpath(f"{within}/{name}"), seen

    def _add_all(self, archive: tarfile.TarFile, some: dict[str, _Seen], *, running: bool) -> None:
        first: dict[tuple[tuple[int, int], int], str] = {}
        top = os.open(self._merged, _FOLDER)
        try:
            for name, seen in some.items():
                try:
                    self._add(archive, top, name, seen, first, running=running)
                except OSError as error:
                    if not (running and _gone(error)):
                        raise
                    continue
                archive.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
                self._packed[name] = seen
        finally:
            os.close(top)

    def _add(
        self,
        archive: tarfile.TarFile,
        top: int,
        name: str,
        seen: _Seen,
        first: dict[tuple[tuple[int, int], int], str],
        *,
        running: bool,
    ) -> None:
        if seen.removed:
            archive.addfile(_removed(name))
            return
        *above, last = name.split("/")
        with folder_at(top, tuple(above)) as folder:
            near = f"/proc/self/fd/{folder}/{last}"
            entry = self._entry(name, near, seen)
            key = seen.inode, seen.changed_ns
            if not entry.isreg():
                archive.addfile(entry)
            elif seen.links > 1 and key in first:
                entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, first[key], 0
                archive.addfile(entry)
            else:
                _add_content(archive, entry, near, running=running)
                first[key] = name

    def _entry(self, name: str, near: str, seen: _Seen) -> tarfile.TarInfo:
        """As the overlay shows it; what is the overlay's own is in the upper directory alone.

        :param near: a path of it that leads through nothing of the container's.
        """
        status = os.lstat(near)  # noqa: PTH116
        entry = tarfile.TarInfo(name)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in _TYPES or kind != stat.S_IFMT(seen.mode):
            raise FileNotFoundError(errno.ENOENT, "it has become something else", name)
        entry.type, entry.mode = _TYPES[kind], stat.S_IMODE(status.st_mode)
        entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
        entry.pax_headers = {"mtime": f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09d}"}
        if entry.issym():
            entry.linkname = os.readlink(near)  # noqa: PTH115
            return entry
        if entry.ischr() or entry.isblk():
            entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        for attribute in os.listxattr(near, follow_symlinks=False):
            if not attribute.startswith(_OVERLAY):
                value = os.getxattr(near, attribute, follow_symlinks=False)
                entry.pax_headers[ATTRIBUTE + attribute] = base64.b64encode(value).decode()
        if entry.isdir():
            self._require_own_name(name)
            if seen.opaque and not self._was_opaque(name):
                entry.pax_headers[KIND] = OPAQUE
        return entry

    def _require_own_name(self, name: str) -> None:
        if self._upper == self._merged:
            return
        if f"{_OVERLAY}redirect" in os.listxattr(f"{self._upper}/{name}", follow_symlinks=False):
            raise MigrateError(
                f"the container has renamed the directory {name} of its image, which is not carried",
                hint="Mount its storage with redirect_dir=off (storage.conf, mountopt), and start it anew.",
            )


def _removed(name: str) -> tarfile.TarInfo:
    gone = tarfile.TarInfo(name)
    gone.pax_headers = {KIND: REMOVED}
    return gone


def _gone(error: OSError) -> bool:
    """Whether it has gone since it was found, or has become something else."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


def _add_content(archive: tarfile.TarFile, entry: tarfile.TarInfo, near: str, *, running: bool) -> None:
    with open(os.open(near, _READ), "rb", buffering=0) as content:  # noqa: PTH123
        status = os.fstat(content.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it has become something else", entry.name)
        entry.size = status.st_size
        archive.addfile(entry, _Exactly(content, entry.size) if running else content)


class _Exactly(io.RawIOBase):
    """So many bytes of a file that may become shorter meanwhile: then zeros are in their place, for once."""

    def __init__(self, file: io.RawIOBase, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        """See :class:`io.RawIOBase`."""
        wanted = self._left if size < 0 else min(size, self._left)
        found = self._file.read(wanted) or bytes(wanted)
        self._left -= len(found)
        return found
