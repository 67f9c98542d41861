"""A restored connection is in repair mode for the moment that its wake-up needs, and nothing else is done in it.

Whoever is killed within would leave it so: its program could neither read nor write.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from netns import Hosts, eventually

import tcpcp
from tcpcp.criu import stages
from tcpcp.endpoint import raw_segment
from tcpcp.kernel import tcp_repair


@pytest.mark.parametrize("runs", (False, True), ids=("still", "runs already"))
@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_in_and_out_of_repair_mode_at_once(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, kind: str, runs: bool
) -> None:
    """One that runs already is not in it at all: its program's calls would fail."""
    sock, peer = hosts.connect(kind)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.resume(sock)
        done: list[str] = []
        for room, name in ((tcp_repair, "set_repair"), (raw_segment, "feed")):
            monkeypatch.setattr(room, name, noted(done, name, getattr(room, name)))
        before = hosts.counters(hosts.here)["TcpOutSegs"]
        stages.wake([ici], {ici.tag: (os.getpid(), sock.fileno())}, runs=runs)
        assert done == (["feed"] if runs else ["feed", "set_repair", "set_repair"])
        assert not tcp_repair.get_repair(sock)
        sent = 1 if runs else 2
        eventually(lambda: hosts.counters(hosts.here)["TcpOutSegs"] >= before + sent, "told, and asked")
    peer.sendall(b"1")
    assert sock.recv(1) == b"1"


def noted(done: list[str], name: str, real: Any) -> Any:
    def call(*args: Any, **more: Any) -> Any:
        done.append(name)
        return real(*args, **more)

    return call
