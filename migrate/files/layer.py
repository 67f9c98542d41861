"""What a container has written to its root on the other host, is done to its root here.

It comes as a tar archive, made by :mod:`migrate.files.written`: all of it, or what has changed since. What was
removed is an entry of its own. Paths in the archive are checked: no link in the container leads out of it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from migrate.errors import ImageError, MigrateError
from tcpcp.kernel.writing import write_all

#: Of an entry, beside what tar knows.
KIND, ATTRIBUTE = "MIGRATE.kind", "MIGRATE.attribute."
REMOVED, OPAQUE = "removed", "opaque"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 1 << 16
_AGAIN = "Install the same version on both hosts, and try again."


def unpack(source: BinaryIO, root: str) -> None:
    """Do to the directory *root* what the archive says, which is read to its end.

    :raises ImageError: it makes no sense. :raises MigrateError: it cannot be written.
    """
    top = os.open(root, _FOLDER)
    directories: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            while (one := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
                _put(archive, one, top)
                if one.isdir():
                    directories.append((one.name, one))
        for name, one in reversed(directories):  # what was put into them has changed their times
            with folder_at(top, _parts(name)) as folder:
                os.utime(folder, ns=_times(one))
    except (tarfile.TarError, ValueError) as error:
        raise ImageError(f"what the container has written makes no sense: {error}", hint=_AGAIN) from error
    except OSError as error:
        hint = "Look at the space in podman's storage there."
        raise MigrateError(
            f"what the container has written cannot be written there: {error}", hint=hint
        ) from error
    finally:
        os.close(top)


def clear(directory: str) -> None:
    """Remove all that is in *directory*."""
    with os.scandir(directory) as found:
        for one in list(found):
            if one.is_dir(follow_symlinks=False):
                shutil.rmtree(one.path)
            else:
                Path(one.path).unlink()


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ImageError(f"what the container has written has a bad name: {name[:100]!r}", hint=_AGAIN)
    return path.parts


@contextlib.contextmanager
def folder_at(top: int, parts: tuple[str, ...]) -> Iterator[int]:
    """The directory at *parts* below *top*, open; no link is followed."""
    folder = os.dup(top)
    try:
        for one in parts:
            below = os.open(one, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def _put(archive: tarfile.TarFile, one: tarfile.TarInfo, top: int) -> None:
    parts = _parts(one.name)
    kind = one.pax_headers.get(KIND)
    if not parts:
        if one.isdir():
            _dress(top, one)
        return
    with folder_at(top, parts[:-1]) as folder:
        if not one.isdir() or kind == OPAQUE or not _is_folder(folder, parts[-1]):
            _remove(folder, parts[-1])
        if kind != REMOVED:
            _make(archive, one, top, folder, parts[-1])


def _make(archive: tarfile.TarFile, one: tarfile.TarInfo, top: int, folder: int, name: str) -> None:
    if one.issym():
        os.symlink(one.linkname, name, dir_fd=folder)
        os.chown(name, one.uid, one.gid, dir_fd=folder, follow_symlinks=False)
        os.utime(name, ns=_times(one), dir_fd=folder, follow_symlinks=False)
        return
    if one.islnk():
        *above, first = _parts(one.linkname)
        with folder_at(top, tuple(above)) as its:
            os.link(first, name, src_dir_fd=its, dst_dir_fd=folder, follow_symlinks=False)
        return
    if one.isdir():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)  # noqa: PTH102
        made = os.open(name, _FOLDER, dir_fd=folder)
    elif one.isreg():
        made = os.open(name, _NEW, 0o600, dir_fd=folder)
    else:
        kind = {tarfile.FIFOTYPE: stat.S_IFIFO, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}
        if one.type not in kind:
            text = f"what the container has written has an entry of no kind: {one.name[:100]!r}"
            raise ImageError(text, hint=_AGAIN)
        os.mknod(name, kind[one.type] | 0o600, os.makedev(one.devmajor, one.devminor), dir_fd=folder)
        os.chown(name, one.uid, one.gid, dir_fd=folder, follow_symlinks=False)
        os.chmod(name, one.mode, dir_fd=folder)  # noqa: PTH101
        os.utime(name, ns=_times(one), dir_fd=folder, follow_symlinks=False)
        return
    try:
        if one.isreg():
            _fill(archive, one, made)
        _dress(made, one)
    finally:
        os.close(made)


def _fill(archive: tarfile.TarFile, one: tarfile.TarInfo, made: int) -> None:
    content = archive.extractfile(one)
    assert content is not None
    while block := content.read(_BLOCK_BYTES):
        if block.strip(b"\0"):
            write_all(made, block)
        else:  # a hole, as it most likely was
            os.lseek(made, len(block), os.SEEK_CUR)
    os.ftruncate(made, one.size)


def _dress(made: int, one: tarfile.TarInfo) -> None:
    os.fchown(made, one.uid, one.gid)
    os.fchmod(made, stat.S_IMODE(one.mode))
    for name, value in one.pax_headers.items():
        if name.startswith(ATTRIBUTE):
            os.setxattr(made, name.removeprefix(ATTRIBUTE), base64.b64decode(value))
    os.utime(made, ns=_times(one))


def _times(one: tarfile.TarInfo) -> tuple[int, int]:
    whole, _, part = one.pax_headers.get("mtime", str(int(one.mtime))).partition(".")
    changed = int(whole) * 10**9 + int((part + "0" * 9)[:9])
    return changed, changed


def _is_folder(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)  # noqa: PTH116
    except FileNotFoundError:
        return False


def _remove(folder: int, name: str) -> None:
    if _is_folder(folder, name):
        shutil.rmtree(name, dir_fd=folder)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)  # noqa: PTH108
