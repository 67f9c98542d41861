"""``--copy-tree``: a directory with all that is in it, copied while the process runs, and again what changed since.

In the end the destination's directory is as the origin's: the one that was there is put aside first, is removed
when the process has moved, and comes back with an undo. Regular files, directories and symbolic links (as such) are
copied, and a file with several names in it is one there, too; sockets, pipes and devices are not, nor what is
mounted below.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from migrate.errors import MigrateError
from migrate.files import copies, link_remap
from migrate.files.content import Digests
from migrate.link.payloads import Piece

Send = Callable[[Piece], None]


@dataclass(frozen=True, slots=True)
class _Sent:
    """What was sent of one path: of another kind it has to go first, and with another time it has changed."""

    kind: tuple[int, str]
    inode: tuple[int, int]
    changed_ns: int

    @classmethod
    def of(cls, path: str, status: os.stat_result) -> _Sent:
        """What *status* says; a change of mode, owner, times, attributes, names or content sets the time."""
        return cls(_kind(path, status), _inode(status), status.st_ctime_ns)


class CopiedTree:
    """One directory.

    :ivar path: absolute.
    """

    def __init__(self, path: str, digests: Digests) -> None:
        self.path = path
        self._digests = digests
        self._sent: dict[str, _Sent] = {}
        #: Inode -> its names that were sent, of files that have several.
        self._names: defaultdict[tuple[int, int], set[str]] = defaultdict(set)

    def copy(self, send: Send) -> None:
        """Send everything. :raises MigrateError: something cannot be read."""
        copies.send_directory_above(self.path, send)
        send(Piece(name=self.path, removed=True))
        now = dict(_walk(self.path))
        for path, status in now.items():
            self._send(path, status, send)
        self._send_directories(now, send)

    def copy_changed(
        self, send: Send, mapped_shared: Collection[str], size: Callable[[str], int | None] = lambda _: None
    ) -> None:
        """Send what is new or has changed since, and say what is gone; without names that CRIU's dump has made.

        :param mapped_shared: files whose times do not tell whether they have changed.
        :param size: how much of the file at a path is sent, as for :func:`migrate.files.copies.send_file`.
        :raises MigrateError: as :meth:`copy`.
        """
        now = {path: status for path, status in _walk(self.path) if not self._of_criu(path, status)}
        gone = sorted(self._sent.keys() - now.keys(), key=len, reverse=True)
        for path in gone:
            self._remove(path, send)
        changed = self._with_all_names(
            {path: status for path, status in now.items() if self._changed(path, status, mapped_shared)}, now
        )
        for path in changed.keys() & self._sent.keys():
            self._names[self._sent[path].inode].discard(path)
        for path, status in changed.items():
            if self._other_kind(path, status):
                self._remove(path, send)
            self._send(path, status, send, size)
        touched = {*gone, *changed}
        above = {os.path.dirname(path) for path in touched}  # noqa: PTH120
        self._send_directories([path for path in now if path in above or path in changed], send)

    def _of_criu(self, path: str, status: os.stat_result) -> bool:
        return path not in self._sent and link_remap.is_one(os.path.basename(path), status)  # noqa: PTH119

    def _with_all_names(
        self, changed: dict[str, os.stat_result], now: dict[str, os.stat_result]
    ) -> dict[str, os.stat_result]:
        """A file that is sent again is another one over there: so are all its names."""
        anew = {_inode(status) for status in changed.values()} & self._names.keys()
        for inode in anew:
            del self._names[inode]
        return {path: status for path, status in now.items() if path in changed or _inode(status) in anew}

    def _other_kind(self, path: str, status: os.stat_result) -> bool:
        """Whether what was sent has to go first. A directory never has: what is in it would go with it."""
        sent = self._sent.get(path)
        if sent is None or stat.S_ISDIR(sent.kind[0]) and stat.S_ISDIR(status.st_mode):
            return False
        return sent.kind != _kind(path, status)

    def _changed(self, path: str, status: os.stat_result, mapped_shared: Collection[str]) -> bool:
        if self._sent.get(path) != _Sent.of(path, status):
            return True
        return stat.S_ISREG(status.st_mode) and self._digests.changed(
            path, mapped_shared=path in mapped_shared
        )

    def _remove(self, path: str, send: Send) -> None:
        sent = self._sent.pop(path)
        self._names[sent.inode].discard(path)
        send(Piece(name=path, removed=True))

    def _send(
        self,
        path: str,
        status: os.stat_result,
        send: Send,
        size: Callable[[str], int | None] = lambda _: None,
    ) -> None:
        """Send one of them; one that the running process has just removed is left out."""
        with _unless_gone():
            sent = _Sent.of(path, status)
            if stat.S_ISLNK(status.st_mode):
                copies.send_link(Path(path), send)
            elif stat.S_ISREG(status.st_mode):
                self._send_file(path, status, send, size(path))
            else:
                copies.send_directory_alone(path, send)
            self._sent[path] = sent

    def _send_file(self, path: str, status: os.stat_result, send: Send, size: int | None) -> None:
        """Send its content, or the name of that which was sent."""
        if first := self._another_name(path, status):
            copies.send_hard_link(path, first, send)
            self._digests.took(path, status, self._digests.known(first))
        else:
            found = sha256()
            copies.send_file(path, send, self._digests.taking(found), size)
            self._digests.took(path, status, found.digest())
        if status.st_nlink > 1:
            self._names[_inode(status)].add(path)

    def _another_name(self, path: str, status: os.stat_result) -> str:
        """One that was sent of this very file, as it is now; "" for none. Numbers of inodes are used again."""
        names = self._names[_inode(status)] - {path} if status.st_nlink > 1 else set()
        return min((one for one in names if self._sent[one] == _Sent.of(one, status)), default="")

    def _send_directories(self, paths: Iterable[str], send: Send) -> None:
        """Once more, for their times have become others by what was put into them."""
        for path in paths:
            if (sent := self._sent.get(path)) is not None and stat.S_ISDIR(sent.kind[0]):
                with _unless_gone():
                    copies.send_directory_alone(path, send)


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    """Leave out what the running process has just removed."""
    try:
        yield
    except FileNotFoundError:
        return
    except MigrateError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


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
