"""Unix sockets that somebody else makes on the destination while CRIU is about to bind those of its images.

CRIU removes what socket is at the path before it binds, without a look at who has it. Between our look
(:func:`migrate.criu.unix_paths.require_free`) and that there are some milliseconds in which nothing keeps others
away: a file of ours at the path would be in CRIU's way, too, and it says nothing between its removal and its bind.
So the kernel tells us of each name that is made there meanwhile (inotify): one is CRIU's, and no other one is lost
without a word.

Source: criu/sk-unix.c unlink_sk(), bind_unix_sk(); man inotify(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from migrate.errors import CriuError, Taken

_LIBC = ctypes.CDLL(None, use_errno=True)
_MADE = 0x00000100 | 0x00000080  # IN_CREATE | IN_MOVED_TO
#: Of two events that are the same, one after the other, the kernel tells once. IN_DELETE | IN_MOVED_FROM
_BETWEEN = 0x00000200 | 0x00000040
_ONLYDIR = 0x01000000
_EVENT = struct.Struct("=iIII")
_READ_BYTES = 1 << 16


class Meanwhile:
    """Listens from now on until :meth:`close`; where the kernel lets nobody listen nothing is heard.

    :param paths: at each of which CRIU will bind one socket.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._names: defaultdict[int, dict[bytes, str]] = defaultdict(dict)
        self._inotify = -1
        for path in paths:
            self._watch(Path(path), path)

    def _watch(self, path: Path, shown: str) -> None:
        if self._inotify < 0:
            self._inotify = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        wanted = _MADE | _BETWEEN | _ONLYDIR
        number = _LIBC.inotify_add_watch(self._inotify, os.fsencode(path.parent), wanted)
        if number > 0:
            self._names[number][os.fsencode(path.name)] = shown

    @contextlib.contextmanager
    def require_none(self) -> Iterator[None]:
        """Make sure that nobody else makes one within, where CRIU binds.

        :raises Taken: somebody has; also where CRIU came too late to remove it, and failed.
        """
        try:
            yield
        except CriuError as error:
            for path in set(self._made()):
                if any(line.endswith(_in_use(path)) for line in error.problem.details):
                    raise _taken(path) from error
            raise
        for path, times in Counter(self._made()).items():
            if times > 1:
                raise _taken(path)

    def _made(self) -> Iterator[str]:
        """The paths that were made, as often as they were."""
        for number, name in self._events():
            if (path := self._names.get(number, {}).get(name)) is not None:
                yield path

    def _events(self) -> Iterator[tuple[int, bytes]]:
        while data := self._read():
            at = 0
            while at < len(data):
                number, what, _, size = _EVENT.unpack_from(data, at)
                if what & _MADE:
                    yield number, data[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0")
                at += _EVENT.size + size

    def _read(self) -> bytes:
        with contextlib.suppress(OSError):  # no more; or there is none
            return os.read(self._inotify, _READ_BYTES)
        return b""

    def close(self) -> None:
        """Listen no more; once more does no harm."""
        if self._inotify >= 0:
            os.close(self._inotify)
        self._inotify = -1


def _in_use(path: str) -> str:
    """How CRIU's log ends the line of a bind that failed because somebody was there."""
    return f" addr {os.fsencode(path).decode(errors='replace')}: {os.strerror(errno.EADDRINUSE)}"


def _taken(path: str) -> Taken:
    shown = ascii(path)[1:-1]
    text = f"somebody else has made {shown} while the process was about to have its socket there"
    return Taken(
        text, hint="Look there whether that program still has its socket (ss -xap), or start it again."
    )
