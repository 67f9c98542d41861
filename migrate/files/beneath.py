"""Reaches a path from the root directory, one component after the other, and follows no symbolic link.

A path may lead through directories of users who can change it at any moment. So each component is opened beneath
the one before, and what is then done in the last directory is done through its descriptor: whoever renames or
replaces something meanwhile changes nothing but their own. What is done to names in a user's directory is done
with that user's rights (:func:`acting_as_owner`), so that it can do nothing that this user could not.

Python has no openat2(2); the walk does what RESOLVE_NO_SYMLINKS does. Source: man openat2(2), setfsuid(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Generator
from pathlib import Path

from migrate.errors import MigrateError

_LIBC = ctypes.CDLL(None, use_errno=True)
_USE = stat.S_IWUSR | stat.S_IXUSR
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LinkInPath(MigrateError):
    """A component of a path is a symbolic link."""

    def __init__(self, path: Path, part: Path) -> None:
        super().__init__(
            f"{part} is a symbolic link, on the way to {path}: none is followed",
            hint="Put a directory there instead of the link, or put the file in its place yourself.",
        )


@contextlib.contextmanager
def directory(path: Path) -> Generator[int, None, None]:
    """A descriptor (O_PATH) of the directory at *path*, meanwhile.

    :param path: absolute, without ``..``.
    :raises LinkInPath: a component is a symbolic link.
    :raises OSError: there is none (ENOENT), or a component is no directory (ENOTDIR).
    """
    found = os.open("/", _DIRECTORY)
    try:
        for number, part in enumerate(path.parts[1:], 2):
            below = _step(found, part, path, Path(*path.parts[:number]))
            os.close(found)
            found = below
        yield found
    finally:
        os.close(found)


def _step(above: int, part: str, path: Path, here: Path) -> int:
    try:
        return os.open(part, _DIRECTORY, dir_fd=above)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(part, dir_fd=above, follow_symlinks=False).st_mode):
            raise LinkInPath(path, here) from None
        raise


def regular(path: Path) -> int:
    """Return a descriptor for reading the regular file at *path*; the caller closes it.

    :raises LinkInPath: as :func:`directory`.
    :raises OSError: there is none (ENOENT); what is there is no regular file (EINVAL).
    """
    with directory(path.parent) as folder:
        status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise LinkInPath(path, path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        found = os.open(path.name, flags, dir_fd=folder)
    if (os.fstat(found).st_dev, os.fstat(found).st_ino) != (status.st_dev, status.st_ino):
        os.close(found)
        raise OSError(errno.ESTALE, "another file took its place in this moment")
    return found


def identity(file: int) -> str:
    """Name the directory or file that is open as *file*, so that it can be known again later."""
    return _identity(os.fstat(file))


def identity_of(folder: int, name: str) -> str:
    """:func:`identity` of *name* in *folder*; no link is followed."""
    return _identity(os.stat(name, dir_fd=folder, follow_symlinks=False))


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def exists(folder: int, name: str) -> bool:
    """Whether *folder* has *name*, be it a link that leads nowhere."""
    return mode(folder, name) != 0


def mode(folder: int, name: str) -> int:
    """What *name* in *folder* is (st_mode); 0 when there is nothing."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def acting_as_owner(folder: int, *, ours: bool = False) -> Generator[None, None, None]:
    """Meanwhile touch files with the rights of the owner of *folder*, and not with root's.

    A directory of root's is used as root, also if others may write into it (/tmp).

    :param ours: we have made it, or what is done takes back what we did: if its owner may not write into it, it is
        made writable for that long, as the owner could do.
    """
    status = os.fstat(folder)
    if os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    with _writable(folder, stat.S_IMODE(status.st_mode)) if ours else contextlib.nullcontext():
        group = _LIBC.setfsgid(status.st_gid)
        _LIBC.setfsuid(status.st_uid)
        try:
            yield
        finally:
            _LIBC.setfsuid(0)
            _LIBC.setfsgid(group)


@contextlib.contextmanager
def _writable(folder: int, mode: int) -> Generator[None, None, None]:
    """Meanwhile the owner of *folder*, which has *mode*, may make and remove names in it."""
    if mode & _USE == _USE:
        yield
        return
    # It is open as a place only (O_PATH), of which fchmod(2) wants to know nothing.
    place = f"/proc/self/fd/{folder}"
    os.chmod(place, mode | _USE)  # noqa: PTH101
    try:
        yield
    finally:
        os.chmod(place, mode)  # noqa: PTH101
