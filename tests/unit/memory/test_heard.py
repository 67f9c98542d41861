"""What was heard is known to whoever shares it, up to the last event that was read."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from migrate.memory import heard, userfault
from migrate.memory.heard import Heard
from migrate.memory.userfault import Event


def message(event: Event) -> bytes:
    return struct.pack("=B7x3Q", *event)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


def test_faults_are_not_kept_and_all_else_is(pipe: tuple[int, int]) -> None:
    events = [
        Event(userfault.FAULT, 0, 0x1000, 0),
        Event(userfault.REMOVE, 0x1000, 0x2000, 0),
        Event(userfault.FAULT, 0, 0x5000, 0),
        Event(userfault.FORK, 7, 0, 0),
        Event(userfault.FAULT, 0, 0x6000, 0),
    ]
    shared = Heard()
    os.write(pipe[1], b"".join(map(message, events)))
    assert [shared.read(3, number == 3, pipe[0]) for number in range(5)] == events
    assert shared.read(3, False, pipe[0]) is None
    assert list(shared.all()) == [(3, False, events[1]), (3, True, events[3])]


def test_it_says_when_there_is_no_more_room(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard, "ENTRIES", 2)
    shared, event = Heard(), Event(userfault.UNMAP, 0x1000, 0x2000, 0)
    for full in (False, True):
        os.write(pipe[1], message(event))
        assert shared.read(0, False, pipe[0]) == event
        assert shared.full is full
    assert len(list(shared.all())) == 2


def test_another_process_knows_it(pipe: tuple[int, int]) -> None:
    shared, event = Heard(), Event(userfault.REMAP, 0x1000, 0x9000, 0x1000)
    os.write(pipe[1], message(event))
    child = os.fork()
    if child == 0:
        shared.read(1, True, pipe[0])
        os._exit(0)
    os.waitpid(child, 0)
    assert list(shared.all()) == [(1, True, event)]
