"""Two drain() one listener that blocks: neither waits for a connection that the other has taken."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from netns import Hosts, eventually
from test_isolation_of_processes import child

from tcpcp import KernelError, drain
from tcpcp.kernel import file_lock, polling


@pytest.fixture
def old(hosts: Hosts) -> Iterator[socket.socket]:
    """A listener that blocks, with one connection in its queue; the thread is in its namespace."""
    with (
        hosts.here.entered(),
        socket.create_server((hosts.here_ip[4], 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        yield listener


class Lock:
    """As that of accept(); says who has to wait for it."""

    def __init__(self, waits: Callable[[], object]) -> None:
        self._lock, self._waits = threading.Lock(), waits

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waits()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class LateAccept:
    """libc, whose accept4() is called *late* by whoever is not the first."""

    def __init__(self, late: Callable[[], object]) -> None:
        self._libc, self._late = ctypes.CDLL(None, use_errno=True), late

    def accept4(self, *arguments: Any) -> int:
        self._late()
        return int(self._libc.accept4(*arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._libc, name)


def at_once(descriptor: int, blocking: bool, then: Callable[[], object]) -> None:
    """os.set_blocking(); what comes after it does not block is *then*."""
    _set_blocking(descriptor, blocking)
    if not blocking:
        then()


_set_blocking, _take = os.set_blocking, file_lock.take


def test_two_threads(old: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds that the listener does not block, and is about to accept; or it waits for the first."""
    second_is_there, first_is_done = threading.Event(), threading.Event()
    found: list[int] = []

    def late() -> None:
        if threading.current_thread() is second:
            second_is_there.set()
            first_is_done.wait()

    def then() -> None:
        if threading.current_thread() is not second:
            second.start()
            assert second_is_there.wait(5)

    second = threading.Thread(target=lambda: found.append(len(drain(old))), daemon=True)
    monkeypatch.setattr(polling, "_libc", LateAccept(late))
    monkeypatch.setattr(polling, "_lock", Lock(second_is_there.set), raising=False)
    monkeypatch.setattr(os, "set_blocking", lambda number, blocking: at_once(number, blocking, then))
    assert len(drain(old)) == 1
    first_is_done.set()
    second.join(5)
    assert found == [0]
    assert os.get_blocking(old.fileno())


def test_two_processes(old: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefork server: the open file is shared, and whether it blocks too."""
    (told, tells), (goes, go) = os.pipe(), os.pipe()
    os.set_blocking(told, False)
    parent = os.getpid()

    def late() -> None:
        if os.getpid() != parent:
            os.write(tells, b".")
            os.read(goes, 1)

    def second() -> None:
        assert drain(old) == []

    def take(sock: socket.socket) -> bool:
        taken = _take(sock)
        if not taken and os.getpid() != parent:
            os.write(tells, b".")
        return taken

    def is_there() -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(told, 1))
        return False

    def then() -> None:
        if os.getpid() == parent:
            one.send()
            eventually(is_there, "the second is there, or waits")

    monkeypatch.setattr(polling, "_libc", LateAccept(late))
    monkeypatch.setattr(file_lock, "take", take)
    monkeypatch.setattr(os, "set_blocking", lambda number, blocking: at_once(number, blocking, then))
    with child(second) as one:
        assert len(drain(old)) == 1
        os.write(go, b".")
        one.wait()
        assert os.get_blocking(old.fileno())
        one.end()


def test_one_that_is_stopped_there_is_not_waited_for_long(
    old: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lock, "WAITED_S", 0.1)
    with child(lambda: file_lock.take(old), lambda: None) as one:
        one.step()
        with pytest.raises(KernelError) as error:
            drain(old)
        assert error.value.errno == errno.EAGAIN
        one.step()
        one.end()
        assert len(drain(old)) == 1
