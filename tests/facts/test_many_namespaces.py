"""A program that passes connections of one network namespace after another, as of containers, keeps none alive."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from netns import Namespace

import tcpcp
from tcpcp.endpoint import isolation


def descriptors() -> int:
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def one(end: str) -> None:
    """A connection in a namespace of its own, got and resumed or released."""
    namespace = Namespace()
    with (
        namespace.entered(),
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as sock,
    ):
        tcpcp.get(sock)
        getattr(tcpcp, end)(sock)
    namespace.close()


@pytest.mark.parametrize("end", ("resume", "release"))
def test_none_is_kept(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(isolation, "TIMEOUT_S", 1)
    one("resume")
    before = descriptors()
    for _ in range(5):
        one(end)
    time.sleep(2.1)  # what was released is isolated until then
    one("resume")
    assert descriptors() <= before  # of other tests there may have been some still
