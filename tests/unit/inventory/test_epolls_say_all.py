"""Whether all that the epolls of a process watch is what their numbers say."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from migrate.inventory import epolls
from migrate.inventory.apart import KCMP

FEW = 5


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[select.epoll, list[socket.socket]]]:
    """An epoll of this process, and the sockets that it watches."""
    monkeypatch.setattr(epolls, "MANY", FEW)
    pairs = [socket.socketpair() for _ in range(FEW)]
    with select.epoll() as epoll:
        for one, _ in pairs:
            epoll.register(one)
        yield epoll, [one for one, _ in pairs]
    for pair in pairs:
        for one in pair:
            one.close()


def say_all() -> bool:
    return epolls.say_all([os.getpid()])


Watching = tuple[select.epoll, list[socket.socket]]


def test_sockets_and_what_can_be_asked_for(watching: Watching) -> None:
    epoll, _ = watching
    assert say_all()
    ends = os.pipe()
    epoll.register(ends[0])
    assert say_all()
    for end in ends:
        os.close(end)


def test_fewer_are_not_worth_it(watching: Watching) -> None:
    epoll, sockets = watching
    epoll.unregister(sockets[0])
    assert not say_all()


def test_a_number_that_was_closed(watching: Watching) -> None:
    _, sockets = watching
    copy = sockets[2].dup()
    sockets[2].close()
    assert not say_all()
    copy.close()


@pytest.mark.parametrize("what", ["another socket", "the other end of a pipe"])
def test_a_number_that_is_another_files_now(watching: Watching, what: str) -> None:
    """Both ends of a pipe have one inode."""
    epoll, sockets = watching
    ends = os.pipe()
    if what == "another socket":
        watched, other = sockets[1].fileno(), sockets[2].fileno()
    else:
        epoll.register(ends[0])
        watched, other = ends
    copy = os.dup(watched)
    assert say_all()
    os.dup2(other, watched)
    assert not say_all()
    for one in (copy, *ends):
        os.close(one)


def test_a_number_that_is_watched_twice(watching: Watching) -> None:
    """Of one file now, of another one before."""
    epoll, sockets = watching
    copy, number = sockets[1].dup(), sockets[1].fileno()
    os.dup2(sockets[2].fileno(), number)
    epoll.register(number)
    assert not say_all()
    copy.close()


def test_a_kernel_that_does_not_answer(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epolls, "KCMP", 1 << 20)
    assert not say_all()


def test_one_that_cannot_be_looked_at(watching: Watching) -> None:
    assert not epolls.say_all([os.getpid(), 1 << 30])


def test_the_filter_answers_this_question_and_no_other() -> None:
    """Of a number that nothing has, and of two files that differ."""
    from migrate.criu import unasked

    code = f"""
import ctypes, os, select
kcmp = lambda kind, first, second: ctypes.CDLL(None).syscall({KCMP}, os.getpid(), os.getpid(), kind, first, second)
epoll = select.epoll()
slot = (ctypes.c_uint32 * 3)(epoll.fileno(), 77, 0)
print(kcmp(7, 77, ctypes.byref(slot)), kcmp(0, 0, epoll.fileno()) != 0)
"""
    plain = [sys.executable, "-c", code]
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        for command in (plain, [sys.executable, "-I", "-S", unasked.__file__, *plain])
    ]
    assert said == [["-1", "True"], ["0", "True"]]
