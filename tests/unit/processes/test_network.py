"""A thread enters a network namespace by its path, comes back, and what it starts meanwhile may be at home."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.errors import KernelError
from migrate.processes import network

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def other() -> Iterator[str]:
    """The path of a network namespace that is not ours."""
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo there; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    yield f"/proc/{process.pid}/ns/net"
    process.communicate()


def where() -> str:
    """The namespace that this thread is in."""
    return str(Path("/proc/thread-self/ns/net").readlink())


def test_there_and_back(other: str) -> None:
    before = where()
    with network.within(other):
        assert where() == str(Path(other).readlink()) != before
    assert where() == before
    with network.within(""):
        assert where() == before


def test_back_after_an_error(other: str) -> None:
    before = where()
    with pytest.raises(ZeroDivisionError), network.within(other):
        raise ZeroDivisionError
    assert where() == before


def test_home_is_where_it_was_before(other: str) -> None:
    before = where()
    with network.home():
        assert where() == before
    with network.stay(other):
        with network.home():
            assert where() == before
        assert where() == str(Path(other).readlink())
    with network.home():
        assert where() == before


def test_what_is_none_is_told(tmp_path: Path, other: str) -> None:
    (tmp_path / "file").write_text("")
    for path in ("file", "missing"):
        assert not network.is_there(str(tmp_path / path))
        with pytest.raises(KernelError, match="cannot be entered"), network.within(str(tmp_path / path)):
            pass
    assert network.is_there(other) and not network.is_there("/proc/self/ns/mnt")


def test_whose_it_is(other: str) -> None:
    pid = int(other.split("/")[2])
    assert network.is_that_of(pid, other) and not network.is_that_of(os.getpid(), other)
    assert network.is_ours(os.getpid()) and not network.is_ours(pid)
