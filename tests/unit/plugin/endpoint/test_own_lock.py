"""A thread never waits for itself, and a finalizer can ask whether it would."""

from __future__ import annotations

import threading

import pytest

from tcpcp.endpoint import own_lock
from tcpcp.endpoint.own_lock import OwnLock
from tcpcp.errors import IsolationError


def takes_twice(lock: OwnLock, told: list[str]) -> None:
    with lock:
        try:
            with lock:
                told.append("has it twice")
        except IsolationError as exc:
            told.append(str(exc))


def test_who_has_it_is_refused_and_does_not_wait() -> None:
    lock, told = OwnLock(), list[str]()
    thread = threading.Thread(target=takes_twice, args=(lock, told), daemon=True)
    thread.start()
    thread.join(5)
    assert len(told) == 1 and "finalizer" in told[0]
    with lock:
        assert own_lock.is_held()
    assert not own_lock.is_held()


def test_another_one_may_be_taken_within() -> None:
    outer, inner = OwnLock(), OwnLock()
    with outer:
        with inner:
            pass
        assert own_lock.is_held()
        with pytest.raises(IsolationError), outer:
            pass
        assert own_lock.is_held()
    assert not own_lock.is_held()


def test_what_another_thread_has_says_nothing_of_this_one() -> None:
    lock, seen = OwnLock(), list[bool]()
    with lock:
        thread = threading.Thread(target=lambda: seen.append(own_lock.is_held()))
        thread.start()
        thread.join(5)
    assert seen == [False]


class Interrupted:
    """A lock that is taken, and then something is thrown into its thread."""

    def __init__(self, lock: object) -> None:
        self._real = lock

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def acquire(self) -> None:
        self._real.acquire()  # type: ignore[attr-defined]
        raise MemoryError


def test_what_is_thrown_in_when_it_has_been_taken_leaves_it_free(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, taken = OwnLock(), list[bool]()
    with monkeypatch.context() as patch:
        patch.setattr(lock, "_lock", Interrupted(lock._lock))
        with pytest.raises(MemoryError), lock:
            pass
    assert not own_lock.is_held()

    def take() -> None:
        with lock:
            taken.append(True)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(5)
    assert taken == [True]
