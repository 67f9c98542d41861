"""Signals wait while a call of the library is under way: an exception of a handler in its middle would leave a
socket changed that nobody remembers.

Only in the main thread, where Python runs handlers. In a program with several threads the kernel may give a
signal to another one, and the handler runs in the middle all the same, unless the others block it
(signal.pthread_sigmask()).
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

    def interrupted(self) -> Interrupted:
        """A context within this one in which handlers run as before."""
        return Interrupted(self._before)


class Interrupted:
    """See :meth:`Uninterrupted.interrupted`."""

    __slots__ = ("_mask",)

    def __init__(self, mask: set[int | signal.Signals] | None) -> None:
        self._mask = mask

    def __enter__(self) -> None:
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
