"""What a container has written to its root, from one overlay to another: a tar archive made of the upper directory.

The image below is the same on both hosts. The upper directory says what is different from it; contents are read,
and written, through the overlay, which knows where they are. What was removed is an entry of its own. Paths in the
archive are checked: no link in the container leads out of it.

Source: Documentation/filesystems/overlayfs.rst, whiteouts and opaque directories.
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

from migrate.errors import ImageError, MigrateError
from tcpcp.kernel.writing import write_all

#: Of an entry, beside what tar knows.
_KIND, _ATTRIBUTE = "MIGRATE.kind", "MIGRATE.attribute."
_REMOVED, _OPAQUE = "removed", "opaque"
_OVERLAY = "trusted.overlay."
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 1 << 16
_AGAIN = "Install the same version on both hosts, and try again."


def pack(upper: str, merged: str, to: Path) -> None:
    """Write to *to* what is in the directory *upper* of the overlay that is mounted at *merged*.

    :param upper: "" for an ordinary directory at *merged*, of which all is packed.
    :raises MigrateError: it cannot be read, or holds what cannot be carried.
    """
    first: dict[tuple[int, int], str] = {}
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(tarfile.open(to, "w", format=tarfile.PAX_FORMAT))
        try:
            archive.addfile(_described(archive, upper or merged, merged, "."))
            for name in _below(upper or merged):
                _add(archive, upper or merged, merged, name, first)
        except OSError as error:
            hint = "Look at the space for the images there, and at the container's storage."
            raise MigrateError(
                f"what the container has written cannot be read: {error}", hint=hint
            ) from error


def unpack(source: Path, root: str) -> None:
    """Do to the directory *root* what the archive says.

    :raises ImageError: it makes no sense. :raises MigrateError: it cannot be written.
    """
    top = os.open(root, _FOLDER)
    directories: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(source, "r:") as archive:
            for one in archive:
                _put(archive, one, top)
                if one.isdir():
                    directories.append((one.name, one))
        for name, one in reversed(directories):  # what was put into them has changed their times
            with _folder(top, _parts(name)) as folder:
                os.utime(folder, ns=_times(one))
    except tarfile.TarError as error:
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


def _below(top: str) -> Iterator[str]:
    """All names in it, a directory before what is in it."""
    waiting = [""]
    while waiting:
        here = waiting.pop()
        for name in sorted(os.listdir(f"{top}/{here}")):  # noqa: PTH208
            path = f"{here}/{name}".lstrip("/")
            yield path
            if stat.S_ISDIR(os.lstat(f"{top}/{path}").st_mode):  # noqa: PTH116
                waiting.append(path)


def _add(
    archive: tarfile.TarFile, upper: str, merged: str, name: str, first: dict[tuple[int, int], str]
) -> None:
    status = os.lstat(f"{upper}/{name}")  # noqa: PTH116
    if stat.S_ISSOCK(status.st_mode):
        return  # CRIU makes its own sockets again
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        gone = tarfile.TarInfo(name)
        gone.pax_headers = {_KIND: _REMOVED}
        archive.addfile(gone)
        return
    found = _described(archive, upper, merged, name)
    if not found.isreg():
        archive.addfile(found)
        return
    key = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and key in first:
        found.type, found.linkname, found.size = tarfile.LNKTYPE, first[key], 0
        archive.addfile(found)
        return
    first[key] = name
    with open(f"{merged}/{name}", "rb") as content:  # noqa: PTH123
        found.size = os.fstat(content.fileno()).st_size
        archive.addfile(found, content)


def _described(archive: tarfile.TarFile, upper: str, merged: str, name: str) -> tarfile.TarInfo:
    # As the overlay shows it; what is the overlay's own is in the upper directory alone.
    found = archive.gettarinfo(f"{merged}/{name}", name)
    status = os.lstat(f"{merged}/{name}")  # noqa: PTH116
    if found.islnk():  # tarfile has seen its inode before; that is ours to say
        found.type, found.linkname = tarfile.REGTYPE, ""
    found.uname = found.gname = ""
    found.pax_headers = {"mtime": f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09d}"}
    if stat.S_ISLNK(status.st_mode):
        return found
    for attribute in os.listxattr(f"{merged}/{name}", follow_symlinks=False):
        value = os.getxattr(f"{merged}/{name}", attribute, follow_symlinks=False)
        if not attribute.startswith(_OVERLAY):
            found.pax_headers[_ATTRIBUTE + attribute] = base64.b64encode(value).decode()
    its = os.listxattr(f"{upper}/{name}", follow_symlinks=False) if upper != merged else []
    if f"{_OVERLAY}redirect" in its and found.isdir():
        raise MigrateError(
            f"the container has renamed the directory {name} of its image, which is not carried",
            hint="Mount its storage with redirect_dir=off (storage.conf, mountopt), and start it anew.",
        )
    if f"{_OVERLAY}opaque" in its and found.isdir():
        found.pax_headers[_KIND] = _OPAQUE
    return found


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ImageError(f"what the container has written has a bad name: {name[:100]!r}", hint=_AGAIN)
    return path.parts


@contextlib.contextmanager
def _folder(top: int, parts: tuple[str, ...]) -> Iterator[int]:
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
    if not parts:
        if one.isdir():
            _dress(top, one)
        return
    with _folder(top, parts[:-1]) as folder:
        kind = one.pax_headers.get(_KIND)
        if not one.isdir() or kind == _OPAQUE or not _is_folder(folder, parts[-1]):
            _remove(folder, parts[-1])
        if kind != _REMOVED:
            _make(archive, one, top, folder, parts[-1])


def _make(archive: tarfile.TarFile, one: tarfile.TarInfo, top: int, folder: int, name: str) -> None:
    if one.issym():
        os.symlink(one.linkname, name, dir_fd=folder)
        os.chown(name, one.uid, one.gid, dir_fd=folder, follow_symlinks=False)
        os.utime(name, ns=_times(one), dir_fd=folder, follow_symlinks=False)
        return
    if one.islnk():
        *above, first = _parts(one.linkname)
        with _folder(top, tuple(above)) as its:
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
        if name.startswith(_ATTRIBUTE):
            os.setxattr(made, name.removeprefix(_ATTRIBUTE), base64.b64decode(value))
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
