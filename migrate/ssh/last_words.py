"""The last lines that somebody writes to standard error, read in a thread, and bounded."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Callable

from migrate import threads

_PIECE_BYTES = 32 << 10
_LINES = 50
_LINE_CHARS = 500


class LastWords:
    """What *read* gives, from the constructor on until it gives nothing.

    :param read: at most so many bytes, b"" at the end; waits; may raise OSError.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._lines: collections.deque[str] = collections.deque(maxlen=_LINES)
        self._thread = threading.Thread(target=self._run, name="ssh-stderr", daemon=True)
        threads.start(self._thread)

    def lines(self) -> list[str]:
        """The last ones so far."""
        return list(self._lines)

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of what is read."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        rest = ""
        with contextlib.suppress(OSError):
            while data := self._read(_PIECE_BYTES):
                *lines, rest = (rest + data.decode(errors="replace")).split("\n")
                self._lines += [line.rstrip("\r")[:_LINE_CHARS] for line in lines if line.strip()]
                rest = rest[-_LINE_CHARS:]
        if rest.strip():
            self._lines.append(rest)
