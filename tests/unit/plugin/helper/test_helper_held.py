"""How much one user has: what is held, and what was released in the last minute."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Sequence

import pytest

from tcpcp.endpoint import isolation
from tcpcp.helper.bounds import Bounds
from tcpcp.helper.held import Caller, Held, Holding
from tcpcp.helper.policy import Rights
from tcpcp.helper.protocol import HelperError
from tcpcp.record.ici import Endpoint


def enter(holding: Holding, count: int) -> list[Held]:
    """So many more sockets are held; their ends do not matter here."""
    socks = [socket.socket() for _ in range(count)]
    end = Endpoint(ipaddress.ip_address("192.0.2.1"), 1)
    caller = Caller(socks[0], 1000, Rights())
    return holding.enter(caller, socks, holding.check_new(socks), [(end, end)] * count, created=True)


def release(socks: Sequence[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def run_again(_: Sequence[socket.socket]) -> None:
    """None of them is in repair mode."""


def fails(_: Sequence[socket.socket]) -> None:
    raise OSError("no")


def test_what_was_released_counts_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "TIMEOUT_S", 0.3)
    holding = Holding(Bounds(held=5))
    for one in enter(holding, 2):
        release([one.sock])
        holding.forget_running(one)
    (undone,) = enter(holding, 1)
    holding.undo(undone, release)
    assert (len(holding), holding.silent()) == (0, 3)
    assert 0 < holding.silent_s() <= 0.3
    with pytest.raises(HelperError, match=r"0 sockets .* 3 were released in the last .* limit is 5"):
        enter(holding, 3)
    enter(holding, 2)
    with pytest.raises(HelperError, match="2 sockets"):
        enter(holding, 1)
    time.sleep(holding.silent_s())
    assert (holding.silent(), holding.silent_s()) == (0, 0.0)
    enter(holding, 3)


def test_what_runs_does_not_count() -> None:
    holding = Holding(Bounds(held=3))
    first, second, third = enter(holding, 3)
    holding.forget_running(first)
    holding.undo(second, run_again)
    holding.undo(third, fails)
    assert (len(holding), holding.silent()) == (0, 0)
    enter(holding, 3)
