"""Signals wait while a call of the library is under way: an exception of a handler in its middle would leave a
socket changed that nobody remembers.

Only in the main thread, where Python runs handlers. In a program with several threads the kernel may give a
signal to another one, and the handler runs in the middle all the same, unless the others block it
(signal.pthread_sigmask()).

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

    def interrupted(self) -> Interrupted:
        """A context within this one in which handlers run as before."""
        return Interrupted(self._before)


class Interrupted:
    """See :meth:`Uninterrupted.interrupted`."""

    __slots__ = ("_mask",)

    def __init__(self, mask: bytes | None) -> None:
        self._mask = mask

    def __enter__(self) -> None:
        if self._mask is not None:
            _set(self._mask)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mask is not None:
            _set(_ALL)
