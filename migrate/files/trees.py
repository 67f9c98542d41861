"""``--copy-tree``: a directory with all that is in it, copied while the process runs, and again what changed since.

In the end the destination's directory is as the origin's: the one that was there is put aside first, is removed
when the process has moved, and comes back with an undo. Regular files, directories and symbolic links (as such) are
copied; sockets, pipes and devices are not, nor what is mounted below.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from pathlib import Path

from migrate.errors import MigrateError
from migrate.files import copies
from migrate.files.content import Digests
from migrate.link.payloads import Piece

Send = Callable[[Piece], None]


class Tree:
    """One directory.

    :ivar path: absolute.
    """

    def __init__(self, path: str, digests: Digests) -> None:
        self.path = path
        self._digests = digests
        self._sent: dict[str, tuple[int, str]] = {}

    def copy(self, send: Send) -> None:
        """Send everything. :raises MigrateError: something cannot be read."""
        copies.send_directory_above(self.path, send)
        send(Piece(name=self.path, removed=True))
        for path, status in _walk(self.path):
            self._send(path, status, send)

    def copy_changed(self, send: Send, mapped_shared: Collection[str]) -> None:
        """Send what is new or has changed since, and say what is gone.

        :param mapped_shared: files whose times do not tell whether they have changed.
        :raises MigrateError: as :meth:`copy`.
        """
        now = dict(_walk(self.path))
        for path in sorted(self._sent.keys() - now.keys(), key=len, reverse=True):
            self._remove(path, send)
        for path, status in now.items():
            if self._other_kind(path, status):
                self._remove(path, send)
            if path not in self._sent or self._changed(path, status, mapped_shared):
                self._send(path, status, send)

    def _other_kind(self, path: str, status: os.stat_result) -> bool:
        """Whether what was sent has to go first. A directory never has: what is in it would go with it."""
        sent = self._sent.get(path)
        if sent is None or stat.S_ISDIR(sent[0]) and stat.S_ISDIR(status.st_mode):
            return False
        return sent != _kind(path, status)

    def _changed(self, path: str, status: os.stat_result, mapped_shared: Collection[str]) -> bool:
        if not stat.S_ISREG(status.st_mode):
            return self._sent[path] != _kind(path, status)
        return self._digests.changed(path, mapped_shared=path in mapped_shared)

    def _remove(self, path: str, send: Send) -> None:
        del self._sent[path]
        send(Piece(name=path, removed=True))

    def _send(self, path: str, status: os.stat_result, send: Send) -> None:
        """Send one of them; one that the running process has just removed is left out."""
        try:
            kind = _kind(path, status)
            if stat.S_ISLNK(status.st_mode):
                copies.send_link(Path(path), send)
            else:
                found = sha256()
                copies.send_file(path, send, found.update)
                self._digests.took(path, status, found.digest())
        except FileNotFoundError:
            return
        except MigrateError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return
            raise
        self._sent[path] = kind


def _kind(path: str, status: os.stat_result) -> tuple[int, str]:
    """What makes it another thing, to be made anew: mode, owner, and where a link leads."""
    link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""  # noqa: PTH115
    return status.st_mode, f"{status.st_uid} {status.st_gid} {link}"


def _walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """What is to be copied, a directory before what is in it; on one file system."""
    device = os.lstat(top).st_dev
    for directory, below, names, fd in os.fwalk(top):
        yield directory, os.fstat(fd)
        for name in (*names, *(one for one in below if _is_link(one, fd))):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield f"{directory}/{name}", status
        below[:] = [one for one in below if _is_below(one, fd, device)]


def _is_link(name: str, fd: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _is_below(name: str, fd: int, device: int) -> bool:
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    # On overlayfs the device of a directory is that of the mount, and that of a file need not be.
    return stat.S_ISDIR(status.st_mode) and status.st_dev == device
