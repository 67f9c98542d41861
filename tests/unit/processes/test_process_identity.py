from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from migrate.processes import identity


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen(["sleep", "1000"], env={"MIGRATE_ID": f"unit-{os.getpid()}"})
    yield made
    made.kill()
    made.wait()


def test_identity_is_of_one_process(child: subprocess.Popen[bytes]) -> None:
    pid, start = identity.identity(child.pid)
    assert identity.alive((pid, start))
    assert not identity.alive((pid, start + 1))
    assert identity.innermost(os.getpid()) == os.getpid()


def test_signal_goes_to_that_process_only(child: subprocess.Popen[bytes]) -> None:
    pid, start = identity.identity(child.pid)
    assert not identity.send((pid, start + 1), signal.SIGKILL)
    assert child.poll() is None
    assert identity.send((pid, start), signal.SIGSTOP)
    assert os.waitid(os.P_PID, pid, os.WSTOPPED) is not None
    assert identity.state(pid) == "T"


def test_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    one = identity.identity(child.pid)
    assert identity.end([one]) == []
    assert identity.state(child.pid) == "Z"
    assert not identity.alive(one)
    assert not identity.send(one, signal.SIGCONT)
    assert identity.wait_gone(one, time.monotonic())


def test_process_that_is_gone(child: subprocess.Popen[bytes]) -> None:
    one = identity.identity(child.pid)
    child.kill()
    child.wait()
    assert not identity.alive(one)
    assert not identity.send(one, signal.SIGCONT)
    assert identity.wait_gone(one, time.monotonic() - 1)
    for look in (identity.identity, identity.state, identity.innermost):
        with pytest.raises(ProcessLookupError):
            look(child.pid)


def test_waiting_ends_at_the_deadline(child: subprocess.Popen[bytes]) -> None:
    assert not identity.wait_gone(identity.identity(child.pid), time.monotonic() + 0.01)


def test_name_with_blanks_and_parentheses() -> None:
    script = "open('/proc/self/comm', 'w').write('a) S (b'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1) as odd:
        assert odd.stdout is not None and odd.stdin is not None
        odd.stdout.readline()
        assert identity.identity(odd.pid)[1] > 0
        assert identity.state(odd.pid) in "RS"
        odd.stdin.write(b"\n")


def test_processes_by_environment(child: subprocess.Popen[bytes]) -> None:
    word = f"MIGRATE_ID=unit-{os.getpid()}"
    one = identity.identity(child.pid)
    assert identity.with_environment(word) == [one]
    assert identity.with_environment(word[:-1]) == []


def test_a_process_within_execve_has_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has closed what is to be closed, so that Popen returns, and has not yet filled the new memory."""
    word = "MIGRATE_ID=execve"
    monkeypatch.setenv(*word.split("="))
    for _ in range(100):
        with subprocess.Popen(["sleep", "1000"]) as one:
            try:
                assert identity.identity(one.pid) in identity.with_environment(word)
            finally:
                one.kill()
