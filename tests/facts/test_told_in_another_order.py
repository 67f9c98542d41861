"""What threads do to their mappings is told by userfaultfd(2) in another order than they have done it.

So nobody who fills in memory while its process runs can know what belongs where: this is why a tree runs on the
destination only when all of its memory is there. If these tests fail some day, it can be filled in later.

An mremap(2) over something else tells of what was there, of the move, and of what it was moved from, each when the
one before was read, and all of it after everything was done; nothing in an event says when.

Source: mm/mremap.c; kernel/fork.c dup_mmap(); fs/userfaultfd.c userfaultfd_event_wait_completion().
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.wait import eventually

WORKLOAD = Path(__file__).parents[1] / "workloads" / "two_movers.py"
PAGE = os.sysconf("SC_PAGESIZE")
TIMEOUT_MS = 20_000
FAULT, FORK, REMAP, UNMAP = 0x12, 0x13, 0x14, 0x16
COPY = 0xC028AA03
#: What is in each page.
MOVED, THIRD = 1, 2


class TwoMovers:
    """The workload. :ivar descriptor: the userfaultfd."""

    def __init__(self, then: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, str(WORKLOAD), str(theirs.fileno()), then]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        data, (self.descriptor,), _, _ = socket.recv_fds(self._socket, 24, 1)
        self.moved, self.covered, self.third = struct.unpack("=3Q", data)

    def begin(self) -> None:
        """Both do what they do, and wait until it is read that they did."""
        for number in (1, 2):
            self._socket.send(b"!")
            eventually(lambda number=number: self._waiting() == number, f"{number} wait for us")

    def _waiting(self) -> int:
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        return sum("userfaultfd_event_wait" in (one / "wchan").read_text() for one in threads)

    def said(self) -> tuple[bool, int]:
        """Whether it is the child, and what it has at the place of the page that was covered."""
        ready, _, _ = select.select([self._socket], [], [], TIMEOUT_MS / 1000)
        assert ready, "it is silent"
        is_child, value = struct.unpack("=?Q", self._socket.recv(16))
        return is_child, value

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()
        os.close(self.descriptor)


@pytest.fixture
def movers(request: pytest.FixtureRequest) -> Iterator[TwoMovers]:
    if os.geteuid():
        pytest.skip("needs root: userfaultfd(2) of what the kernel does in a process, too")
    movers = TwoMovers(request.param)
    yield movers
    movers.close()


def told(descriptor: int, count: int) -> list[tuple[int, int, int]]:
    """The next events but faults: kind, and two numbers; all that is asked for is told then."""
    poll, found = select.poll(), list[tuple[int, int, int]]()
    poll.register(descriptor, select.POLLIN)
    while len(found) < count:
        assert poll.poll(TIMEOUT_MS), found
        kind, first, second, _ = struct.unpack("=B7x3Q", os.read(descriptor, 32))
        if kind != FAULT:
            found.append((kind, first, second))
    return found


def fill(descriptor: int, page: int, number: int) -> None:
    """All of a page with *number*, as soon as who has done something to his mappings knows that we have heard."""
    content = ctypes.create_string_buffer(number.to_bytes(8, "little") * (PAGE // 8), PAGE)

    def filled() -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.ioctl(descriptor, COPY, struct.pack("=4Qq", page, ctypes.addressof(content), PAGE, 0, 0))
            return True
        return False

    eventually(filled, "the page is filled in")


@pytest.mark.parametrize("movers", ["fork"], indirect=True)
def test_a_child_is_told_of_before_a_move_that_it_has_inherited(movers: TwoMovers) -> None:
    """By the events what was moved is at its old place in the child, but there is nothing there."""
    movers.begin()
    unmapped, (kind, number, _), *others = told(movers.descriptor, 4)
    assert unmapped == (UNMAP, movers.covered, movers.covered + PAGE)
    assert kind == FORK
    assert (REMAP, movers.moved, movers.covered) in others
    child = number & 0xFFFFFFFF
    with pytest.raises(FileNotFoundError):
        fill(child, movers.moved, MOVED)
    fill(child, movers.covered, MOVED)
    fill(movers.descriptor, movers.covered, MOVED)
    assert sorted((movers.said(), movers.said())) == [(False, MOVED), (True, MOVED)]
    os.close(child)


@pytest.mark.parametrize("movers", ["move"], indirect=True)
def test_of_two_moves_the_later_one_is_told_of_first(movers: TwoMovers) -> None:
    """By the events the third page was moved twice, and what it was moved over is lost; but both are there."""
    movers.begin()
    events = told(movers.descriptor, 5)
    assert events[0] == (UNMAP, movers.covered, movers.covered + PAGE)
    first, second = (REMAP, movers.moved, movers.covered), (REMAP, movers.third, movers.moved)
    assert [one for one in events if one[0] == REMAP] == [second, first]
    fill(movers.descriptor, movers.covered, MOVED)
    fill(movers.descriptor, movers.moved, THIRD)
    assert movers.said() == (False, MOVED)
