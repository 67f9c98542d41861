"""The origin's part of ``--copy-files`` and ``--copy-tree``: sends files with all that belongs to them."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from migrate.errors import MigrateError
from migrate.files import beneath, leases
from migrate.link.payloads import CHUNK_BYTES, Piece

Send = Callable[[Piece], None]

#: Extended attributes that mean the same on every host. Labels of a security policy are the other host's own
#: affair, and capabilities of a program come with its installation.
ATTRIBUTES = ("user.", "system.posix_acl_")


def send_file(
    path: str, send: Send, look: Callable[[bytes], None] = lambda _: None, size: int | None = None
) -> int:
    """Send the regular file, or the directory without what is in it, at *path*; the number of bytes sent.

    :param look: gets all content as well.
    :param size: what the file has to have there, of one that others write meanwhile; None: all that there is.
    :raises MigrateError: it cannot be read, or is shorter; part of it may have been sent.
    """
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            send_directory(Path(path), send)
            return 0
        leases.require_none(path)
        file = beneath.regular(Path(path))
        try:
            sent = _send_open(path, file, send, look, sys.maxsize if size is None else size)
        finally:
            os.close(file)
    except OSError as error:
        raise MigrateError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeEncodeError as error:
        raise _unsendable(path) from error
    if size is not None and sent < size:
        raise MigrateError(
            f"{path} has become shorter since the process was frozen: somebody else writes it",
            hint="Try again.",
        )
    return sent


def _unsendable(path: str) -> MigrateError:
    """A path, or the name of one of its attributes, is no text: the messages have texts."""
    shown = os.fsencode(path).decode(errors="replace")
    hint = "Rename it, or copy it yourself, and name what is beside it with --copy-tree."
    return MigrateError(f"cannot copy {shown}: a name of it is not UTF-8", hint=hint)


def send_directory_above(path: str, send: Send) -> None:
    """Send the directories that *path* is in, each without what is in it."""
    if Path(path).parent.name:
        send_directory(Path(path).parent, send)


def send_directory(path: Path, send: Send) -> None:
    """Send the directory *path* and those above it, without what is in them."""
    for one in (*reversed(path.parents), path):
        if one.name:
            send_directory_alone(str(one), send)


def send_directory_alone(path: str, send: Send) -> None:
    """Send the directory *path*, without what is in it; those above it are there.

    :raises MigrateError: it cannot be read, or its name cannot be sent.
    """
    try:
        with beneath.directory(Path(path)) as folder:
            opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            send(_last(path, os.fstat(opened), attributes=_attributes(opened)))
        finally:
            os.close(opened)
    except OSError as error:
        raise MigrateError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeEncodeError as error:
        raise _unsendable(path) from error


def send_hard_link(path: str, first: str, send: Send) -> None:
    """Send *path* as one more name of the file at *first*, which was sent before."""
    send(Piece(name=path, hard_link=first, last=True))


def send_link(path: Path, send: Send) -> None:
    """Send the symbolic link at *path* as such.

    :raises MigrateError: its name cannot be sent.
    """
    with beneath.directory(path.parent) as folder:
        status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        target = os.readlink(path.name, dir_fd=folder)  # noqa: PTH115
    try:
        piece = _last(str(path), status, os.fsencode(target))
    except UnicodeEncodeError as error:
        raise _unsendable(str(path)) from error
    send(piece)


def _send_open(path: str, file: int, send: Send, look: Callable[[bytes], None], most: int) -> int:
    status = os.fstat(file)
    offset, data = 0, os.read(file, min(CHUNK_BYTES, most))
    while True:
        following = os.read(file, min(CHUNK_BYTES, most - offset - len(data))) if data else b""
        look(data)
        if following:
            send(Piece(name=path, offset=offset, data=data, mode=status.st_mode))
        else:
            send(_last(path, status, data, offset=offset, attributes=_attributes(file)))
        offset, data = offset + len(data), following
        if not data:
            return offset


def _last(
    path: str,
    status: os.stat_result,
    data: bytes = b"",
    *,
    offset: int = 0,
    attributes: Mapping[str, bytes] = MappingProxyType({}),
) -> Piece:
    """The last piece of a file says what belongs to it; the times are those from before we read it."""
    return Piece(
        name=path,
        offset=offset,
        data=data,
        last=True,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        accessed_ns=status.st_atime_ns,
        modified_ns=status.st_mtime_ns,
        attributes=attributes,
    )


def _attributes(file: int) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(file, name) for name in os.listxattr(file) if name.startswith(ATTRIBUTES)}
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise


def flush(path: str) -> None:
    """What the process has written to a file, or a directory, that both hosts see must have reached its server."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fsync(file)
    finally:
        os.close(file)
