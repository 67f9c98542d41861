"""What an open file is beside what stat says: where it is kept, and whether it is a database of a known kind."""

from __future__ import annotations

import contextlib
import os

from migrate.inventory import attributes, storage
from migrate.inventory.proc import FdInfo
from migrate.pb.session_pb2 import File

_SQLITE = b"SQLite format 3\0"
#: mdb.c MDB_MAGIC: behind the header of the first page (data.mdb), and at the start (lock.mdb); as in memory.
_LMDB = (0xBEEFC0DE).to_bytes(4, "little"), (0xBEEFC0DE).to_bytes(4, "big")
_HEAD_BYTES = 32
_LMDB_OFFSETS = (0, 16)


def add(file: File, through: str) -> None:
    """Add to *file* what can be seen at *through*, a path below /proc/PID; nothing if it was closed since."""
    if file.regular:
        file.attributes[:] = attributes.of(through)
    if file.build_id:
        return
    if not file.storage:
        with contextlib.suppress(OSError):
            file.storage = storage.name(through)
    if file.written and not file.format:
        file.format = database(_head(through))


def opened(file: File, info: FdInfo) -> None:
    """Add to *file* what every descriptor of it tells, of which this is one: whether it is written, and only at its
    end; whether a directory has been read in part. Where the kernel makes it, a position is the same on each host.
    """
    file.read_in_part |= file.directory and file.use == File.OPEN and info.more.get("pos", "0") != "0"
    writing = info.flags & os.O_ACCMODE
    if writing != os.O_RDONLY:
        appending = writing == os.O_WRONLY and bool(info.flags & os.O_APPEND)
        file.append_only = appending and (file.append_only or not file.written)
        file.written = True


def database(head: bytes) -> str:
    """The kind of database whose file begins with *head*; "" for another file."""
    if head.startswith(_SQLITE):
        return "SQLite"
    if any(head[offset : offset + 4] in _LMDB for offset in _LMDB_OFFSETS):
        return "LMDB"
    return ""


def _head(through: str) -> bytes:
    try:
        file = os.open(through, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(file, _HEAD_BYTES, 0)
    except OSError:
        return b""
    finally:
        os.close(file)
