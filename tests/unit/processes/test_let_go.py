"""Whether a tree runs whose CRIU was killed: by processes that look like what CRIU builds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from migrate import limits
from migrate.processes import identity, let_go

#: Blocks every signal, as CRIU does in what it builds: the C library would leave out two.
DEAF = """
import ctypes, threading, time
def deaf():
    every = ctypes.c_uint64(2 ** 64 - 1)
    assert ctypes.CDLL(None).syscall({number}, 2, ctypes.byref(every), None, 8) == 0
{then}
"""
NUMBER = {"x86_64": 14, "aarch64": 135, "s390x": 175}[os.uname().machine]

Start = Callable[[str], identity.Identity]


@pytest.fixture
def start() -> Iterator[Start]:
    children = []

    def begin(then: str) -> identity.Identity:
        words = DEAF.format(number=NUMBER, then=then)
        child = subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        found = identity.identity(child.pid)
        while "wait" in then and identity.state(child.pid) != "S":
            pass
        return found

    yield begin
    for child in children:
        child.kill()
        child.communicate()


WAITING = "deaf(); print(flush=True); time.sleep(600)  # waits"


def test_what_waits_for_criu_does_not_run(start: Start) -> None:
    assert not let_go.any_runs([start(WAITING)])


def test_it_was_stopped_meanwhile(start: Start) -> None:
    task = start(WAITING)
    os.kill(task[0], signal.SIGSTOP)
    while identity.state(task[0]) != "T":
        pass
    assert not let_go.any_runs([task])


def test_one_of_several_runs(start: Start) -> None:
    assert let_go.any_runs([start(WAITING), start("print(flush=True); time.sleep(600)")])


def test_one_of_its_threads_runs(start: Start) -> None:
    """The first is deaf, the second is not."""
    words = (
        "threading.Thread(target=time.sleep, args=(600,)).start(); deaf(); print(flush=True); time.sleep(600)"
    )
    assert let_go.any_runs([start(words)])


def test_what_is_dead_does_not_run(start: Start) -> None:
    task = start(WAITING)
    os.kill(task[0], signal.SIGKILL)
    while identity.state(task[0]) != "Z":
        pass
    assert not let_go.any_runs([task, (task[0], task[1] + 1)])
    assert not let_go.any_runs([])


def test_on_its_way_to_the_program_it_counts_as_running(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BEGINS_S", 0.1)
    assert let_go.any_runs([start("deaf(); print(flush=True)\nwhile True: pass")])
