"""``--copy-files``: files that the process needs and the destination has not, or has differently.

The origin reads them, the destination puts each in its place at once, whole or not at all, and keeps what
was there until the migration has ended, so that an undo can put it back.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from migrate.errors import MigrateError
from migrate.journal import Journal
from migrate.pb.session_pb2 import FileChunk
from migrate.wire import CHUNK_BYTES


def send_file(path: str, send: Callable[[FileChunk], None]) -> int:
    """Send the regular file, or the directory without what is in it, at *path*; the number of bytes sent.

    :raises MigrateError: it cannot be read; part of it may have been sent.
    """
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            send(_chunk(path, status, 0, b"", last=True))
            return 0
        with Path(path).open("rb", buffering=0) as file:
            offset, data = 0, file.read(CHUNK_BYTES)
            while data:
                following = file.read(CHUNK_BYTES)
                send(_chunk(path, status, offset, data, last=not following))
                offset, data = offset + len(data), following
            if not offset:
                send(_chunk(path, status, 0, b"", last=True))
            return offset
    except OSError as error:
        raise MigrateError(f"cannot read {path}: {error.strerror}", phase="copy") from error


def _chunk(path: str, status: os.stat_result, offset: int, data: bytes, *, last: bool) -> FileChunk:
    return FileChunk(
        name=path,
        offset=offset,
        data=data,
        last=last,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
    )


def is_place(name: str) -> bool:
    """Whether *name*, from the network, is a path that a file may have: absolute and without detours."""
    path = Path(name)
    return (
        path.is_absolute()
        and "\0" not in name
        and ".." not in path.parts
        and path == Path(os.path.normpath(path))
    )


class FileTaker:
    """Takes the pieces on the destination; paths and offsets come from the network and are checked."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._suffix = f".migrate-{journal.migration_id}"
        self._file: BinaryIO | None = None
        self._path = Path()

    def take(self, chunk: FileChunk) -> None:
        """Take one piece; the last one of a file puts it in its place.

        :raises MigrateError: a bad path, a gap, no space, no permission; the file there is as it was.
        """
        path = Path(chunk.name)
        if not is_place(chunk.name):
            raise self._error(f"not a path to copy to: {chunk.name[:200]!r}")
        try:
            if stat.S_ISDIR(chunk.mode):
                self._make_directories(path, chunk)
                return
            self._write(path, chunk)
            if chunk.last:
                self._put(path, chunk)
        except OSError as error:
            hint = "Look at the space and the permissions there, or put the file there yourself."
            raise self._error(f"cannot write {path}: {error.strerror}", hint) from error

    def _write(self, path: Path, chunk: FileChunk) -> None:
        if chunk.offset == 0:
            self.close()
            self._make_directories(path.parent, None)
            self._journal.did("copied", path=f"{path}{self._suffix}", backup="")
            self._file = Path(f"{path}{self._suffix}").open("xb", buffering=0)  # noqa: SIM115
            self._path = path
        if self._file is None or path != self._path or self._file.tell() != chunk.offset:
            raise self._error(f"{path}: a piece that does not follow the one before")
        left = memoryview(chunk.data)
        while left:
            left = left[self._file.write(left) :]

    def _put(self, path: Path, chunk: FileChunk) -> None:
        assert self._file is not None
        os.fchown(self._file.fileno(), chunk.uid, chunk.gid)
        os.fchmod(self._file.fileno(), stat.S_IMODE(chunk.mode))
        self.close()
        backup = f"{path}{self._suffix}.before" if path.exists() else ""
        self._journal.did("copied", path=str(path), backup=backup)
        if backup and not Path(backup).exists():  # a second copy must not replace the first one's backup
            os.link(path, backup)
        Path(f"{path}{self._suffix}").replace(path)

    def _make_directories(self, path: Path, chunk: FileChunk | None) -> None:
        missing = [one for one in (path, *path.parents) if not one.exists()]
        for directory in reversed(missing):
            self._journal.did("directory", path=str(directory))
            directory.mkdir(mode=0o755)
        if chunk is not None and missing:
            os.chown(path, chunk.uid, chunk.gid)
            path.chmod(stat.S_IMODE(chunk.mode))

    def close(self) -> None:
        """Let go of a file that is not complete."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @staticmethod
    def _error(text: str, hint: str = "") -> MigrateError:
        return MigrateError(text, phase="copy", role="destination", hint=hint)
