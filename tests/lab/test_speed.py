"""A connection that is moved with its process goes on at the speed that it had; judged by ``ss`` and tshark.

The process is tests/workloads/obedient.py.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import pytest
from harness.captures import Capture
from harness.hosts import connect, spawn, ss
from harness.migrate import move
from harness.tcp_rules import faults
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Lab

PORT = 7600
MANY = 6_000_000
ALGORITHMS = ("cubic", "reno")
#: What ``ss`` calls what a connection knows of its path.
PATH = ("cwnd", "ssthresh", "mss", "pmtu", "wscale", "congestion")
TCP_CONGESTION = 13

pytestmark = pytest.mark.usefixtures("clean")


def download(lab: Lab, address: str, name: str, **plan: Any) -> socket.socket:
    """A connection by which the process has sent much, and everything has been acknowledged."""
    sock = connect(lab.hosts["peer"], address, PORT)
    sock.sendall(json.dumps({"name": name, "send": MANY, **plan}).encode() + b"\n")
    left = MANY
    while left:
        left -= len(sock.recv(min(left, 1 << 18)))
    return sock


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_what_is_known_of_the_path_is_kept(lab: Lab, version: str) -> None:
    address = getattr(lab.service, version)
    pid = spawn(lab.hosts["origin"], [sys.executable, str(WORKLOADS / "obedient.py"), str(PORT)])
    eventually(lambda: len(ss(lab.hosts["origin"], "-l", f"sport = {PORT}")) == 2, "the server listens")
    with Capture(lab.hosts["peer"], "eth0", f"tcp port {PORT}") as capture:
        peers = [
            download(lab, address, one, set=[[socket.IPPROTO_TCP, TCP_CONGESTION, one]]) for one in ALGORITHMS
        ]
        eventually(lambda: is_acknowledged(lab), "all is, which the round-trip time is measured by")
        before = by_peer(lab, "origin")
        move(lab, pid, "--address", lab.service.ipv4, "--address", lab.service.ipv6)
        after = by_peer(lab, "destination")
        for sock in peers:
            was, is_ = (found[str(sock.getsockname()[1])] for found in (before, after))
            assert int(was["cwnd"]) > 10
            assert {key: is_.get(key) for key in PATH} == {key: was.get(key) for key in PATH}
            # The round-trip time is known: without one the timer would be 3 s. It is no shorter than it was.
            was_ms, is_ms = (float(found["rtt"].split("/")[0]) for found in (was, is_))
            assert was_ms <= is_ms + 0.001
            assert float(is_["rto"]) <= float(was["rto"]) + 20
    assert sorted(found["congestion"] for found in after.values()) == sorted(ALGORITHMS)
    assert faults(capture.connections(lossless=False)) == []


def is_acknowledged(lab: Lab) -> bool:
    """Whether all that the process has sent from the origin is."""
    return not any("unacked" in one for one in by_peer(lab, "origin").values())


def by_peer(lab: Lab, where: str) -> dict[str, dict[str, str]]:
    """The process's ends, by the peer's port."""
    return {
        one["peer"].rpartition(":")[2]: one
        for one in ss(lab.hosts[where], "state", "connected", f"sport = {PORT}")
    }
