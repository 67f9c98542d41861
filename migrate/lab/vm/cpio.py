"""Writes the archives that a kernel unpacks as its first file system.

Pure. Source: Documentation/driver-api/early-userspace/buffer-format.rst, the format "newc"; several archives may
follow each other.
"""

import stat
from collections.abc import Mapping
from typing import NamedTuple

_ALIGNMENT = 4
_END = "TRAILER!!!"


class Entry(NamedTuple):
    """A regular file, or a directory where *data* is None. *mode*: permission bits."""

    data: bytes | None
    mode: int = 0o755


def archive(entries: Mapping[str, Entry]) -> bytes:
    """Return the archive of *entries*: path without a leading slash -> entry; a directory before what is in it."""
    written = bytearray()
    for number, (path, entry) in enumerate(entries.items(), 1):
        kind = stat.S_IFDIR if entry.data is None else stat.S_IFREG
        written += _member(number, path, kind | entry.mode, entry.data or b"")
    return bytes(written + _member(0, _END, 0, b""))


def _member(number: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(header) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
