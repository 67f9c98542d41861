"""A connection that is moved with its process goes on at the speed that it had; judged by ``ss`` and tshark.

The process is tests/workloads/obedient.py.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from harness.captures import Capture
from harness.hosts import connect, spawn, ss
from harness.migrate import move
from harness.tcp_rules import faults
from harness.wait import DEADLINE_S, eventually
from harness.workloads import WORKLOADS
from obedient import content

from migrate.lab import Lab

PORT = 7600
MANY, UNDER_WAY = 6_000_000, 5_000
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


def test_the_round_trip_time_is_known_with_bytes_under_way(lab: Lab) -> None:
    """What the process has sent, and its peer not acknowledged, goes along, and the time to wait for it stays."""
    address = lab.service.ipv4
    pid = spawn(lab.hosts["origin"], [sys.executable, str(WORKLOADS / "obedient.py"), str(PORT)])
    eventually(lambda: len(ss(lab.hosts["origin"], "-l", f"sport = {PORT}")) == 2, "the server listens")
    sock = download(lab, address, "under way", send_then=UNDER_WAY)
    eventually(lambda: is_acknowledged(lab), "all is, which the round-trip time is measured by")
    mine = str(sock.getsockname()[1])
    with silent(lab, mine):
        ask(lab, address, "go")
        eventually(lambda: "unacked" in by_peer(lab, "origin")[mine]["all"], "bytes are under way")
        was = by_peer(lab, "origin")[mine]
        move(lab, pid, "--address", lab.service.ipv4, "--address", lab.service.ipv6)
        is_ = by_peer(lab, "destination")[mine]
    assert "unacked" in is_["all"], is_
    assert float(was["rtt"].split("/")[0]) <= float(is_["rtt"].split("/")[0]) + 0.001
    # Without one it is a second and more, doubled each time that it has passed.
    assert float(is_["rto"]) / 2 ** int(is_.get("backoff", 0)) < 1000
    sock.settimeout(DEADLINE_S)
    assert sock.recv(UNDER_WAY, socket.MSG_WAITALL) == content("under way", MANY + UNDER_WAY)[MANY:]


@contextlib.contextmanager
def silent(lab: Lab, port: str) -> Iterator[None]:
    """Nothing that the peer sends from *port* leaves it."""
    peer = lab.hosts["peer"]
    chain = f"chain c {{ type filter hook output priority 0; tcp sport {port} tcp dport {PORT} drop; }}"
    peer.exec(["nft", f"table inet silent {{ {chain}; }}"])
    try:
        yield
    finally:
        peer.exec(["nft", "delete table inet silent"])


def ask(lab: Lab, address: str, what: str) -> bytes:
    """Ask the process, by a connection of its own."""
    with connect(lab.hosts["peer"], address, PORT) as sock:
        sock.sendall(json.dumps({"ask": what}).encode() + b"\n")
        sock.settimeout(DEADLINE_S)
        return sock.recv(1 << 16)


def is_acknowledged(lab: Lab) -> bool:
    """Whether all that the process has sent from the origin is."""
    return not any("unacked" in one for one in by_peer(lab, "origin").values())


def by_peer(lab: Lab, where: str) -> dict[str, dict[str, str]]:
    """The process's ends, by the peer's port."""
    return {
        one["peer"].rpartition(":")[2]: one
        for one in ss(lab.hosts[where], "state", "connected", f"sport = {PORT}")
    }
