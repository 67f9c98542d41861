"""What the tests on real hosts share."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import kills
import pytest
from bad_input_bench import InputBench
from harness.reset import clean, reset
from passing_lab import remove_filters
from ssh_server import Server

from migrate.lab import Lab
from migrate.ssh import config

__all__ = ["clean"]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of this test session's own, up."""
    with Lab(f"test-{os.getpid()}") as lab:
        yield lab


@pytest.fixture(scope="session")
def bench() -> Iterator[InputBench]:
    """A lab of the tests of bad input, which break it in many ways."""
    with Lab(f"bad-{os.getpid()}") as lab:
        yield InputBench(lab)


@pytest.fixture
def no_filter_left(lab: Lab) -> Iterator[None]:
    """The lab as it came up, before and after, whatever a test of the library leaves."""
    reset(lab)
    yield
    remove_filters(lab)
    reset(lab)


@pytest.fixture(scope="module")
def loaded(lab: Lab) -> Iterator[kills.Bench]:
    """A server under load, whose migrations are to be killed."""
    bench = kills.Bench(lab)
    yield bench
    bench.close()


@pytest.fixture
def no_thread_left(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No thread outlives a test, and nothing is printed by a library."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name != "within"]
    assert left == []
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def server(no_thread_left: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An sshd of this test's own on the loopback device."""
    monkeypatch.setattr(config, "SYSTEM", tmp_path / "etc")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    server = Server(tmp_path)
    yield server
    server.stop()
