"""A lock that its thread knows of: what the garbage collector runs in the middle must not wait for it."""

from __future__ import annotations

import threading
from types import TracebackType


class _Held(threading.local):
    """:ivar count: locks that this thread has, or waits for."""

    count = 0


_held = _Held()


class OwnLock:
    """As threading.Lock, for a ``with`` statement; :func:`is_held` says whether this thread has one."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        _held.count += 1
        try:
            self._lock.acquire()
        except BaseException:
            _held.count -= 1
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        _held.count -= 1


def is_held() -> bool:
    """Whether this thread has one, or waits for it: a finalizer then leaves what needs one to another thread."""
    return _held.count > 0
