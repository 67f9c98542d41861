"""Signals wait while a call of the library is under way: an exception of a handler in its middle would leave a
socket changed that nobody remembers.

Only in the main thread, where Python runs handlers. In a program with several threads the kernel may give a
signal to another one, and the handler runs in the middle all the same, unless the others block it
(signal.pthread_sigmask()). The library's own do: :func:`start`.
"""

from __future__ import annotations

import signal
import threading
from types import TracebackType

_ALL = signal.valid_signals()


class Uninterrupted:
    """A context in which no handler runs; those of signals that came meanwhile run at its end. May be nested."""

    __slots__ = ("_before",)

    def __enter__(self) -> Uninterrupted:
        self._before: set[int | signal.Signals] | None = None
        if threading.current_thread() is threading.main_thread():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            try:
                signal.pthread_sigmask(
                    signal.SIG_BLOCK, _ALL
                )  # runs the handler of one that came just before
            except BaseException:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                raise
            self._before = before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def let(self) -> None:
        """Within the context: handlers run as before, those of signals that came meanwhile in this call."""
        if self._before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def hold(self) -> None:
        """After :meth:`let`: none runs again until the context ends, or the next :meth:`let`."""
        if self._before is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)


def start(thread: threading.Thread) -> None:
    """Start *thread*, which no signal is given to: else its handler would run in the middle all the same."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
