"""Signals that come while the library is at work run their handlers afterwards, each of them once."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from forking import ended, in_child
from netns import eventually

from tcpcp.endpoint import uninterrupted
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
        while not told:
            await asyncio.sleep(0.01)
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
        eventually(lambda: bool(told), "the other thread has taken it")
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


@pytest.mark.usefixtures("thread")
def test_one_that_raises_while_they_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes as soon as it is the program's again; the others are the program's too."""
    numbers = signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP

    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    real, back = signal.signal, []

    def comes_at_once(number: int, given: object) -> None:
        real(number, given)  # type: ignore[arg-type]
        if given is handler:
            back.append(number)
            handler(number, None)

    before = [signal.signal(number, handler) for number in numbers]
    try:
        with monkeypatch.context() as patched:
            patched.setattr(uninterrupted.signal, "signal", comes_at_once)
            with pytest.raises(KeyboardInterrupt), Uninterrupted():
                pass
        assert sorted(back) == sorted(numbers)
        assert [signal.getsignal(number) for number in numbers] == [handler] * 3
    finally:
        for number, one in zip(numbers, before, strict=True):
            signal.signal(number, one)


# --- children that another thread forks meanwhile -----------------------------------------------------------


class Came(Exception):
    """What the handler raises."""


def _raise(number: int, frame: object) -> None:
    raise Came


def _handled() -> bool:
    """Whether this process runs the program's handler, now and after a call of its own; and takes all signals."""
    for _ in range(2):
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(1)
        except Came:
            pass
        else:
            return False
        with Uninterrupted():
            pass
    return signal.getsignal(signal.SIGUSR1) is _raise and not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _handled_here_and_below() -> bool:
    return _handled() and ended(in_child(_handled)) == 0


@pytest.fixture
def raising() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, _raise)
    yield
    signal.signal(signal.SIGUSR1, before)


def _from_another(fork: Callable[[], int]) -> int:
    """What *fork* says in another thread, while the main one is at work."""
    said: list[int] = []
    middle = threading.Event()

    def run() -> None:
        middle.wait()
        said.append(fork())

    thread = threading.Thread(target=run)
    thread.start()
    with Uninterrupted():
        middle.set()
        thread.join()
    return said[0]


@pytest.mark.usefixtures("raising")
def test_a_child_of_another_thread_has_the_handlers() -> None:
    for _ in range(5):
        assert _from_another(lambda: ended(in_child(_handled_here_and_below))) == 0


def _worker() -> None:
    sys.exit(0 if _handled() else 1)


@pytest.mark.usefixtures("raising")
def test_so_has_a_worker_of_multiprocessing() -> None:
    def fork() -> int:
        worker = multiprocessing.get_context("fork").Process(target=_worker)
        worker.start()
        worker.join(20)
        return worker.exitcode if worker.exitcode is not None else -1

    assert _from_another(fork) == 0


@pytest.mark.usefixtures("raising")
def test_what_came_to_the_parent_does_not_come_to_the_child() -> None:
    """Also where the main thread forks in the middle; and the child's own comes when the context ends."""
    waits = threading.Event()
    thread = threading.Thread(target=waits.wait)
    thread.start()
    pid = -1
    with pytest.raises(Came), Uninterrupted():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.05)
        pid = os.fork()
        if not pid:
            _leave_in_the_middle()
    waits.set()
    thread.join()
    assert ended(pid) == 0


def _leave_in_the_middle() -> None:
    """In the child, which has the parent's context."""
    try:
        [context] = uninterrupted._begun
        context.let()
        context.call()
        context.hold()
        context(signal.SIGUSR1, None)
        context.end()
        context.call()
    except Came:
        os._exit(0 if signal.getsignal(signal.SIGUSR1) is _raise else 2)
    finally:
        os._exit(1)


def _flags(number: int) -> bytes:
    """SA_RESTART and the others of the kernel's; in struct sigaction behind the handler and the mask."""
    action = ctypes.create_string_buffer(8 + 128 + 16)
    assert ctypes.CDLL(None).sigaction(number, None, action) == 0
    return action.raw[136:140]


@pytest.mark.usefixtures("raising")
def test_a_child_forked_while_a_handler_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's part too: a call that the program wants to be gone on with is."""
    signal.siginterrupt(signal.SIGUSR1, False)
    flags = _flags(signal.SIGUSR1)
    real, parent = signal.signal, os.getpid()
    forked: list[int] = []

    def fork() -> None:
        forked.append(ended(in_child(lambda: _flags(signal.SIGUSR1) == flags)))

    def forking(number: int, handler: object) -> None:
        real(number, handler)  # type: ignore[arg-type]
        if number == signal.SIGUSR1 and os.getpid() == parent:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()

    waits = threading.Event()
    other = threading.Thread(target=waits.wait)
    other.start()
    with monkeypatch.context() as patched:
        patched.setattr(uninterrupted.signal, "signal", forking)
        with Uninterrupted():
            pass
    waits.set()
    other.join()
    assert forked == [0, 0]
