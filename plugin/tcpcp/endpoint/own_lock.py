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

    __slots__ = ("_lock", "_owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    def __enter__(self) -> None:
        if self._owner == threading.get_ident():
            raise IsolationError(
                "called by a finalizer in the middle of another call of this thread; nothing has changed"
            )
        _held.count += 1
        try:
            self._lock.acquire()
        except BaseException:
            _held.count -= 1
            raise
        self._owner = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner = 0
        self._lock.release()
        _held.count -= 1


def is_held() -> bool:
    """Whether this thread has one, or waits for it: a finalizer then leaves what needs one to another thread."""
    return _held.count > 0
