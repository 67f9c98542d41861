"""The process that was asked for is this one, whoever has its number afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from migrate.errors import Ended, Refused
from migrate.processes.chosen import Subject, stopped


def test_one_that_runs(child: subprocess.Popen[bytes]) -> None:
    with Subject(child.pid) as subject:
        subject.require()
        assert subject.tasks() == [child.pid]
        assert subject.frozen() == [(child.pid, subject.start)]
        assert subject.state() in "RSD"
        assert not subject.ended(within_s=0.01)


def test_one_that_ends(child: subprocess.Popen[bytes]) -> None:
    with Subject(child.pid) as subject:
        child.kill()
        assert subject.ended(within_s=5)  # a zombie: nobody has waited for it
        assert subject.state() == ""
        child.wait()
        for look in (subject.require, subject.tasks, subject.frozen):
            with pytest.raises(Ended, match=f"process {child.pid} has ended"):
                look()


def test_its_number_belongs_to_another_one(child: subprocess.Popen[bytes]) -> None:
    """As it looks when the number has been given out again: it is there, and it is not the one."""
    with Subject(child.pid) as subject:
        subject.start -= 1
        with pytest.raises(Ended):
            subject.frozen()


def test_there_is_none(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    with pytest.raises(Refused) as refused:
        Subject(child.pid)
    assert [one.code for one in refused.value.reasons] == ["no-such-process"]


def test_a_thread_is_no_process() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        with pytest.raises(Refused) as refused:
            Subject(thread.native_id or 0)
    finally:
        go.set()
        thread.join()
    assert [one.code for one in refused.value.reasons] == ["a-thread"]


def test_one_that_is_stopped(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    with Subject(child.pid) as subject:
        assert subject.was_stopped
        assert subject.state() == "T"
    assert stopped([child.pid, os.getpid(), 1 << 22]) == {child.pid}  # one of them does not exist


FORKS = "import os\nwhile True:\n if (child := os.fork()) == 0: os._exit(0)\n os.waitpid(child, 0)"


def test_a_tree_that_never_rests() -> None:
    """Its list of processes changes between any two readings; the root is in each."""
    with subprocess.Popen([sys.executable, "-c", FORKS]) as forker, Subject(forker.pid) as subject:
        try:
            for _ in range(100):
                found = subject.tasks()
                assert found[0] == forker.pid
                assert stopped(found) == frozenset()
        finally:
            forker.kill()
