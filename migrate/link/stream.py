"""A byte stream in both directions: what a link runs over, and the one made of two file descriptors."""

from __future__ import annotations

import errno
import os
import select
import threading
from typing import Protocol


class Stream(Protocol):
    """A byte stream in both directions."""

    def read(self, n: int) -> bytes:
        """Return 1 to *n* bytes, or b"" at the end and after close(); waits."""

    def write(self, data: bytes) -> None:
        """Write all of *data*; waits. Raises OSError when closed or lost."""

    def end(self, timeout_s: float) -> None:
        """Say that no more is written; give it at most *timeout_s* to arrive. Does not raise."""

    def close(self) -> None:
        """Close both directions without waiting for the other side; frees threads in read and write."""


class FdStream:
    """A stream over *read_fd* and *write_fd* (pipes or sockets, perhaps the same one), which it owns.

    They become non-blocking: close() of a descriptor does not free a thread that hangs in it, poll() with one
    more descriptor does. One thread reads, one writes.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._fds = (read_fd, write_fd)
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._closed = False
        self._users = 0
        self._lock = threading.Lock()
        for fd in self._fds:
            os.set_blocking(fd, False)

    @classmethod
    def from_stdio(cls) -> FdStream:
        """Take over this program's standard input and output.

        Leaves descriptor 0 on /dev/null and 1 on standard error, so that nothing a library or a child prints
        gets into the stream.
        """
        fds = [os.dup(0), os.dup(1)]  # above 2 and not inheritable
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.close(null)
        return cls(*fds)

    def read(self, n: int) -> bytes:
        """See :class:`Stream`."""
        while self._wait(self._fds[0], select.POLLIN):
            try:
                return os.read(self._fds[0], n)
            except BlockingIOError:
                continue
            finally:
                self._leave()
        return b""

    def write(self, data: bytes) -> None:
        """See :class:`Stream`."""
        view = memoryview(data)
        while view:
            if not self._wait(self._fds[1], select.POLLOUT):
                raise OSError(errno.EPIPE, "the stream was closed")
            try:
                view = view[os.write(self._fds[1], view) :]
            except BlockingIOError:
                continue
            finally:
                self._leave()

    def end(self, timeout_s: float) -> None:
        """See :class:`Stream`. Nothing to do: the kernel delivers what was written, also after close()."""

    def close(self) -> None:
        """See :class:`Stream`. The descriptors are closed when the last thread has left them."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.write(self._wake_w, b"x")
            if self._users == 0:
                self._close_fds()

    def _wait(self, fd: int, event: int) -> bool:
        """Wait until *fd* is ready and stay its user, see :meth:`_leave`; False when the stream is closed."""
        with self._lock:
            if self._closed:
                return False
            self._users += 1
        poll = select.poll()
        poll.register(fd, event)
        poll.register(self._wake_r, select.POLLIN)
        ready = [found for found, _ in poll.poll()]
        if self._wake_r not in ready:
            return True
        self._leave()
        return False

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._closed and self._users == 0:
                self._close_fds()

    def _close_fds(self) -> None:
        for fd in {*self._fds, self._wake_r, self._wake_w}:
            os.close(fd)
