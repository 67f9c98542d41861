"""A lock that its thread knows of: what the garbage collector runs in the middle must not wait for it."""

from __future__ import annotations

import threading
from types import TracebackType

from tcpcp.errors import IsolationError


class _Held(threading.local):
    """:ivar count: locks that this thread has, or waits for."""

    count = 0


_held = _Held()


class OwnLock:
    """As threading.Lock, for a ``with`` statement; :func:`is_held` says whether this thread has one.

    :raises IsolationError: this thread has this very one, and would wait for itself.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        # It knows its owner by itself, from the moment in which it is taken.
        self._lock = threading.RLock()

    def _is_mine(self) -> bool:
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]  # as threading.Condition asks it

    def __enter__(self) -> None:
        if self._is_mine():
            raise IsolationError(
                "called by a finalizer in the middle of another call of this thread; nothing has changed"
            )
        _held.count += 1
        try:
            self._lock.acquire()
        except BaseException:  # thrown in from outside, it may come when the lock has been taken
            _held.count -= 1
            if self._is_mine():
                self._lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        _held.count -= 1


def is_held() -> bool:
    """Whether this thread has one, or waits for it: a finalizer then leaves what needs one to another thread."""
    return _held.count > 0
