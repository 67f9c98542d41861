"""Signals wait while a call of the library is under way: an exception of a handler in its middle would leave a
socket changed that nobody remembers.

Only in the main thread, where Python runs handlers. In a program with several threads the kernel may give a
signal to another one, and the handler runs in the middle all the same, unless the others block it
(signal.pthread_sigmask()). The library's own do: :func:`start`.

The mask is changed by libc's own function: Python's gives the mask of before as a set with an object for each of
60 signals, which takes 30 us of the time for which a connection stands still.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from types import TracebackType

#: sigset_t of glibc and of musl; the kernel's has 8 or 16.
_MASK_BYTES = 128

_libc = ctypes.CDLL(None, use_errno=True)
_libc.pthread_sigmask.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]


def _full() -> bytes:
    mask = ctypes.create_string_buffer(_MASK_BYTES)
    _libc.sigfillset(mask)
    return mask.raw


_ALL = _full()


def _current() -> bytes:
    """The mask of this thread."""
    mask = ctypes.create_string_buffer(_MASK_BYTES)
    _check(_libc.pthread_sigmask(signal.SIG_BLOCK, None, mask))
    return mask.raw


def _set(mask: bytes) -> None:
    """Where that lets a signal through that waits, its handler runs at the latest when this returns."""
    _check(_libc.pthread_sigmask(signal.SIG_SETMASK, mask, None))


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))


class Uninterrupted:
    """A context in which no handler runs; those of signals that came meanwhile run at its end. May be nested."""

    __slots__ = ("_before",)

    def __enter__(self) -> Uninterrupted:
        self._before: bytes | None = None
        if threading.current_thread() is threading.main_thread():
            before = _current()
            try:
                _set(_ALL)  # runs the handler of one that came just before
            except BaseException:
                _set(before)
                raise
            self._before = before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            _set(self._before)

    def let(self) -> None:
        """Within the context: handlers run as before, those of signals that came meanwhile in this call."""
        if self._before is not None:
            _set(self._before)

    def hold(self) -> None:
        """After :meth:`let`: none runs again until the context ends, or the next :meth:`let`."""
        if self._before is not None:
            _set(_ALL)


def start(thread: threading.Thread) -> None:
    """Start *thread*, which no signal is given to: else its handler would run in the middle all the same."""
    before = _current()
    _set(_ALL)
    try:
        thread.start()
    finally:
        _set(before)
