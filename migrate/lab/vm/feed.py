"""What a command in a machine reads: given to it as it takes it, and counted.

A pipe of one page is full until all that is in it is read: then poll(2) tells, and only then more is put into it.
Source: pipe(7), F_SETPIPE_SZ; fs/pipe.c pipe_poll().
"""

import fcntl
import os
import select
import struct
import termios

PAGE_BYTES = 4096


class Feed:
    """The writing end of a command's standard input, or the other side of its terminal."""

    def __init__(self, descriptor: int, *, terminal: bool) -> None:
        self.descriptor, self.terminal = descriptor, terminal
        self._waiting = bytearray()
        self._unread = 0
        self._ends = False
        os.set_blocking(descriptor, False)
        if not terminal:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PAGE_BYTES)

    def add(self, data: bytes) -> None:
        """*data* is for the command; nothing means that nothing comes after."""
        self._waiting += data
        self._ends = self._ends or not data

    def is_wanted(self) -> bool:
        """Return whether it matters that the command reads."""
        return self.descriptor >= 0 and bool(self._waiting or self._unread)

    def give(self, events: int = 0) -> int:
        """Give the command what it has room for; return how many bytes it has taken since the last time.

        :param events: of the descriptor; who does not read any more will not either.
        """
        if self.descriptor < 0:
            self._waiting.clear()
            return 0
        taken = self._taken()
        if events & (select.POLLERR | select.POLLHUP):
            self._end()
            return taken
        if self._waiting and not self._unread:
            taken += self._write()
        if self._ends and not self._waiting and not self._unread and not self.terminal:
            self._end()
        return taken

    def _write(self) -> int:
        """Return how much is taken with it: a terminal takes what it is given."""
        try:
            size = os.write(self.descriptor, self._waiting)
        except BlockingIOError:
            return 0
        except OSError:
            self._end()
            return 0
        del self._waiting[:size]
        if self.terminal:
            return size
        self._unread = size
        return 0

    def _taken(self) -> int:
        if self.terminal:
            return 0
        (left,) = struct.unpack("i", fcntl.ioctl(self.descriptor, termios.FIONREAD, b"\0" * 4))
        taken, self._unread = self._unread - int(left), int(left)
        return taken

    def _end(self) -> None:
        self._waiting.clear()
        if not self.terminal:
            os.close(self.descriptor)
        self.descriptor = -1
