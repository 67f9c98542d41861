"""Signals that come while the library is at work run their handlers afterwards, each of them once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tcpcp.endpoint.uninterrupted import Uninterrupted


@pytest.fixture
def thread() -> Iterator[None]:
    """Another one, to which the kernel may give a signal too."""
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    yield
    over.set()
    other.join()


def _come(*numbers: signal.Signals) -> None:
    """Signals to this process, the main thread of which is at work."""
    with Uninterrupted():
        for number in numbers:
            os.kill(os.getpid(), number)
        time.sleep(0.05)


@pytest.mark.usefixtures("thread")
def test_an_event_loop_is_told_once() -> None:
    told = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, told.append, 1)
        _come(signal.SIGUSR1)
        await asyncio.sleep(0.1)
        loop.remove_signal_handler(signal.SIGUSR1)

    asyncio.run(program())
    assert told == [1]


@pytest.mark.usefixtures("thread")
def test_what_the_main_thread_does_not_let_through() -> None:
    """Another thread takes it, and Python runs its handler in the main thread."""
    told = []
    before = signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        _come(signal.SIGUSR1)
        assert told == [1]
        assert not signal.sigpending()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("thread")
def test_one_that_raises_does_not_keep_the_others_from_it() -> None:
    told = []

    def raises(number: int, frame: object) -> None:
        told.append(number)
        raise KeyboardInterrupt

    numbers = signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP
    before = [signal.signal(number, raises) for number in numbers]
    try:
        with pytest.raises(KeyboardInterrupt):
            _come(*numbers)
        assert sorted(told) == sorted(numbers)
        assert [signal.getsignal(number) for number in numbers] == [raises] * 3
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
