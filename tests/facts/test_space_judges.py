"""What the walk over the space judges a socket by, where a timer of the kernel has sent something in between."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from netns import eventually
from space_case import Case
from space_states import info
from test_space import Worlds, walk

import tcpcp

#: tcpi_segs_out in struct tcp_info.
_SEGS_OUT = 136
#: With bytes under way, others that may be sent, and room to tell more window than was told.
_CASE = Case(
    shape=("FIN_WAIT1", True, "both"),
    kind="v6",
    made="repair",
    wscale=(1, 3),
    mss=(1460, 536),
    rcvbuf=2304,
    sndbuf=500_000,
    there_rcvbuf=40_000,
)


@pytest.fixture
def worlds() -> Iterator[Worlds]:
    worlds = Worlds()
    yield worlds
    worlds.close()


def test_a_loss_probe_in_the_isolation_is_no_fault(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells the window anew and meets the filter, so that only this count has it."""
    really = tcpcp.create
    seen = []

    def create_and_wait(ici: tcpcp.Ici, **how: bool) -> socket.socket:
        made = really(ici, **how)
        eventually(lambda: info(made, _SEGS_OUT) > 0, "the loss probe", 2)
        seen.append(made)
        return made

    monkeypatch.setattr(tcpcp, "create", create_and_wait)
    assert walk(worlds, _CASE) == []
    assert seen
