"""Standard input of the asking end of a command: looked at, and taken only as far as the command has read it.

What it does not read is left to whoever reads next, as if it ran here: the loop ``while read line; do migrate-lab
--vm exec ...; done < file`` goes on. What cannot be looked at without taking it, as a terminal's lines, is taken.
"""

import contextlib
import ctypes
import os
import select
import socket
import stat
from typing import Protocol

from migrate.lab import enter

CHUNK = 65536
#: Of tee(2).
SPLICE_F_NONBLOCK = 2


class Way(Protocol):
    """How to read one kind of descriptor."""

    def look(self) -> bytes:
        """Return what is to be read next, at most :data:`CHUNK` bytes of it; nothing at its end."""

    def take(self, size: int) -> None:
        """Read *size* bytes of that, for good."""


class Given:
    """What is given to the command. One piece at a time is offered to it, and the next once that is taken."""

    def __init__(self, descriptor: int = 0) -> None:
        self.descriptor = descriptor
        self.ended = False
        self.offered = 0
        self._way = _way(descriptor)

    def is_wanted(self) -> bool:
        """Return whether there may be something to :meth:`offer`."""
        return not self.ended and not self.offered

    def offer(self) -> bytes | None:
        """Return what comes next, nothing at the end of it; None: not yet."""
        try:
            data = self._way.look()
        except BlockingIOError:
            return None
        except OSError:  # A standard input that cannot be read, or a terminal that is gone.
            data = b""
        self.offered, self.ended = len(data), not data
        return data

    def take(self, size: int) -> None:
        """The command has read *size* bytes of what was offered."""
        self._way.take(size)
        self.offered -= size


def _way(descriptor: int) -> Way:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return _Other(descriptor)
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return _File(descriptor)
    if stat.S_ISFIFO(mode):
        return _Pipe(descriptor)
    return _Socket(descriptor) if stat.S_ISSOCK(mode) else _Other(descriptor)


class _Other:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def look(self) -> bytes:
        return os.read(self._descriptor, CHUNK)

    def take(self, size: int) -> None:
        """It is."""


class _File(_Other):
    """Its position is shared with whoever has given it to us."""

    def look(self) -> bytes:
        return os.pread(self._descriptor, CHUNK, os.lseek(self._descriptor, 0, os.SEEK_CUR))

    def take(self, size: int) -> None:
        os.lseek(self._descriptor, size, os.SEEK_CUR)


class _Pipe(_Other):
    """Copied into a pipe of ours by tee(2), which leaves it as it is."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._copy, self._copy_end = os.pipe()

    def look(self) -> bytes:
        size = enter.libc.tee(self._descriptor, self._copy_end, CHUNK, SPLICE_F_NONBLOCK)
        if size < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return os.read(self._copy, size) if size else b""

    def take(self, size: int) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while size and poll.poll(0):  # Else somebody else was quicker.
            size -= len(os.read(self._descriptor, size)) or size


class _Socket(_Other):
    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def look(self) -> bytes:
        return self._socket.recv(CHUNK, socket.MSG_PEEK | socket.MSG_DONTWAIT)

    def take(self, size: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while size:
                size -= len(self._socket.recv(size, socket.MSG_DONTWAIT)) or size
