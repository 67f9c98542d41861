"""A program as a child with a stream to it: watched by its pidfd, ended and reaped whatever happens."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence

from migrate import limits
from migrate.link.stream import FdStream
from migrate.ssh.last_words import LastWords


class Child:
    """Runs when the constructor returns; its standard input and output are a socket, whose other end we have.

    It is the leader of a session of its own: Ctrl-C does not reach it, and it can ask nothing at the terminal. If
    we die its input ends.

    :param words: the program's path and its arguments; no shell sees them.
    :raises OSError, KernelError: it cannot be started; nothing is left.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._status: int | None = None
        with contextlib.ExitStack() as undone:
            self._socket, theirs = socket.socketpair()
            undone.callback(self._socket.close)
            errors, their_errors = os.pipe()
            with theirs, os.fdopen(their_errors, "wb", 0) as stderr:
                self._errors = FdStream(errors, errors)
                undone.callback(self._errors.close)
                self._stream = FdStream(*[os.dup(self._socket.fileno())] * 2)
                undone.callback(self._stream.close)
                self._said = LastWords(self._errors.read)
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    words,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=stderr,
                    env=environment,
                    start_new_session=True,
                )
            undone.callback(self._process.wait)
            undone.callback(self._process.kill)
            self._pidfd = os.pidfd_open(self._process.pid)
            undone.pop_all()

    @property
    def pid(self) -> int:
        """Its number; another process's once it has been reaped."""
        return self._process.pid

    def read(self, n: int) -> bytes:
        """See :class:`migrate.link.stream.Stream`."""
        try:
            return self._stream.read(n)
        except ConnectionResetError:  # it has ended without taking all that was written
            return b""

    def write(self, data: bytes) -> None:
        """See :class:`migrate.link.stream.Stream`."""
        self._stream.write(data)

    def end(self, timeout_s: float) -> None:
        """See :class:`migrate.link.stream.Stream`: its standard input ends; waits for its exit."""
        with contextlib.suppress(OSError):  # it, or we, have closed it
            self._socket.shutdown(socket.SHUT_WR)
        self.wait(timeout_s)

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status, negative for a signal; None: it still runs after *timeout_s*."""
        with self._lock:
            if self._status is None and self._ended(timeout_s):
                self._status = self._process.wait()
            return self._status

    def said(self, timeout_s: float = 0.0) -> list[str]:
        """The last lines of its standard error; once it has ended, all of them, if they come within *timeout_s*."""
        self._said.wait(timeout_s)
        return self._said.lines()

    def close(self) -> None:
        """End it and reap it. Does not raise, may be called twice, and by several threads."""
        self._stream.close()
        self._socket.close()
        with self._lock:
            if self._status is None:
                self._status = self._end()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1
        # What it wrote in the end is worth the moment that it takes; a helper of its may have the pipe for longer.
        self._said.wait(limits.SSH_LAST_WORDS_S)
        self._errors.close()
        self._said.wait(limits.SSH_STATUS_S)

    def _end(self) -> int:
        """Asked first, since it has helpers of its own to end; its number is its own until it is reaped."""
        if not self._ended(0):
            self._process.send_signal(signal.SIGTERM)
        if not self._ended(limits.SSH_END_S):
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def _ended(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(1000 * max(0.0, timeout_s)))
