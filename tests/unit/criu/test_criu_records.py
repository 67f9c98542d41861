"""CRIU's images as records: what is read can be written again, and what is cut is no image."""

from __future__ import annotations

import struct

import pytest

from migrate.criu import records
from migrate.errors import ProtocolError
from migrate.pb.session_pb2 import TaskState

MESSAGES = [TaskState(pid=number, state="S").SerializeToString() for number in (1, 2)]
IMAGE = b"magic123" + b"".join(struct.pack("<I", len(one)) + one for one in MESSAGES)


def test_there_and_back() -> None:
    found = list(records.read(IMAGE, TaskState, "x.img"))
    assert [(entry.pid, message) for entry, message in found] == list(zip((1, 2), MESSAGES, strict=True))
    assert records.with_messages(IMAGE, MESSAGES) == IMAGE


@pytest.mark.parametrize("length", [len(IMAGE) - 1, len(IMAGE) - len(MESSAGES[1]) - 1])
def test_what_is_cut(length: int) -> None:
    with pytest.raises(ProtocolError, match="x.img is not an image of CRIU's"):
        list(records.read(IMAGE[:length], TaskState, "x.img"))
