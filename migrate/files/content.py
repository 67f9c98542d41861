"""What is in a file, as a number that no other content has; read again only where something may have changed.

Size and times are a hint: a file whose times are older than our last look has not been written since. That is not
so for memory that is mapped shared (the first write to a page sets the time, the second does not), and not for
what was written in the moment in which we looked.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from migrate.files import beneath, leases

_READ_BYTES = 1 << 20
#: What is read in a part of a second; of less nobody wants to know.
_TELL_BYTES = 64 << 20
#: Times of files are set from a clock that may be a tick behind (10 ms at most), or two seconds coarse on FAT.
SETTLED_NS = 2_500_000_000


@dataclass(frozen=True, slots=True)
class Print:
    """What tells whether a file may have changed since it was read."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Print:
        """The print of the file that *status* is about."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Digests:
    """Reads files, and remembers what it has read.

    Holes are read as well. Who asks where they are (SEEK_DATA) may be told of some where something was just written
    (https://github.com/openzfs/zfs/issues/15526): a process would go on with a file that has lost that.

    :param checkpoint: called now and then while a file is read; may raise.
    :param tell: is told how many bytes have been read in all, now and then.
    :ivar sent: paths whose content was read while it was sent to the other host.
    """

    def __init__(
        self, checkpoint: Callable[[], None] = lambda: None, tell: Callable[[int], None] = lambda _: None
    ) -> None:
        self.sent: set[str] = set()
        self._checkpoint, self._tell = checkpoint, tell
        self._read_bytes = self._told_bytes = 0
        self._known: dict[str, tuple[Print, bytes, bool]] = {}

    def of(self, path: str, *, mapped_shared: bool = False) -> bytes:
        """Return the SHA-256 of the regular file at *path*.

        :param mapped_shared: its times tell nothing: read it in any case.
        :raises MigrateError, OSError: it cannot be read, or somebody has a lease on it.
        """
        known = self._known.get(path)
        if known is not None and not mapped_shared and known[2] and known[0] == self._look(path):
            return known[1]
        return self._read(path)

    def changed(self, path: str, *, mapped_shared: bool = False) -> bool:
        """Whether *path* holds something else than when it was last read; a file never read has changed.

        :raises MigrateError, OSError: as :meth:`of`.
        """
        known = self._known.get(path)
        if known is None or known[0].size_bytes != self._look(path).size_bytes:
            return True
        return self.of(path, mapped_shared=mapped_shared) != known[1]

    def known(self, path: str) -> bytes:
        """What was last found at *path*; b"" for nothing."""
        return self._known[path][1] if path in self._known else b""

    def took(self, path: str, before: os.stat_result, digest: bytes) -> None:
        """Somebody has read *path* and found *digest*; *before* is from before that."""
        newest = max(before.st_mtime_ns, before.st_ctime_ns)
        self._known[path] = Print.of(before), digest, newest + SETTLED_NS < time.time_ns()

    def count(self, more_bytes: int) -> None:
        """So much was read, here or by somebody else; it is told if that has become much since."""
        self._read_bytes += more_bytes
        if self._read_bytes - self._told_bytes >= _TELL_BYTES:
            self._told_bytes = self._read_bytes
            self._tell(self._read_bytes)

    def taking(self, digest: hashlib._Hash) -> Callable[[bytes], None]:
        """What takes the content of a file that somebody else reads: for *digest*, and to be counted."""

        def look(data: bytes) -> None:
            digest.update(data)
            self.count(len(data))

        return look

    @staticmethod
    def _look(path: str) -> Print:
        return Print.of(os.stat(path))  # noqa: PTH116

    def _read(self, path: str) -> bytes:
        leases.require_none(path)
        file = beneath.regular(Path(os.path.realpath(path)))
        try:
            before, found = os.fstat(file), hashlib.sha256()
            while data := os.read(file, _READ_BYTES):
                found.update(data)
                self.count(len(data))
                self._checkpoint()
        finally:
            os.close(file)
        self.took(path, before, found.digest())
        return found.digest()
