"""One file of a host: what stat and its build-id say of it, and what is at the path of another host's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from migrate.inventory import elf, storage
from migrate.pb.session_pb2 import File

#: The unit of st_blocks, whatever the file system's is. Source: man stat(3type).
_BLOCK_BYTES = 512
#: Uses of files that CRIU does not open by their path.
NOT_OPENED = frozenset({File.NEIGHBOUR, File.COPIED_TREE, File.DELETED})


def shown(path: str) -> str:
    """*path*, as Python has it from the kernel, for people: what is not UTF-8 is replaced."""
    return os.fsencode(path).decode(errors="replace")


def stored_bytes(status: os.stat_result) -> int:
    """What a copy of the file takes, without its holes."""
    return min(status.st_size, allocated_bytes(status))


def allocated_bytes(status: os.stat_result) -> int:
    """What the file takes on its disk."""
    return status.st_blocks * _BLOCK_BYTES


def describe(path: str, use: File.Use, status: os.stat_result) -> File:
    """Return what *status* says about the file; build-id and writing are left to the caller."""
    return File(
        path=path,
        use=use,
        size_bytes=status.st_size,
        stored_bytes=stored_bytes(status),
        mode=status.st_mode,
        exists=True,
        uid=status.st_uid,
        gid=status.st_gid,
        device=status.st_dev,
        inode=status.st_ino,
        directory=stat.S_ISDIR(status.st_mode),
        regular=stat.S_ISREG(status.st_mode),
    )


def deleted(path: str, status: os.stat_result) -> File:
    """Return what *status* says about a file or directory without a name; ``exists``: another one has it by now."""
    return File(
        path=path,
        use=File.DELETED,
        stored_bytes=allocated_bytes(status),
        directory=stat.S_ISDIR(status.st_mode),
        exists=os.path.lexists(path),
    )


def build_id(path: str) -> bytes:
    """Return the build-id of the file at *path*; b"" when it has none or cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return elf.build_id(lambda offset, size: os.pread(fd, size, offset) if offset < 1 << 63 else b"")
    except OSError:
        return b""
    finally:
        os.close(fd)


def there(wanted: list[File]) -> Iterator[File]:
    """Yield for each of the origin's files what this host has at its path; ``exists`` says if anything."""
    for one in wanted:
        found = _there(one)
        if "\0" not in one.path and (real := os.path.realpath(one.path)) != one.path and shown(real) == real:
            found.real_path = real
        yield found


def _there(one: File) -> File:
    try:
        status = os.stat(one.path)  # noqa: PTH116
        found = describe(one.path, one.use, status)
        folder = found.directory and one.use in (File.OPEN, File.SOCKET_DIRECTORY)
        if folder or (found.regular and not one.build_id):
            found.storage = storage.name(one.path)
    except (OSError, ValueError):
        return File(path=one.path, use=one.use)
    if one.build_id and found.regular:
        found.build_id = build_id(one.path)
    return found
