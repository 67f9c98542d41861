"""Thousands of connections are moved while the peer asks over all of them; every question is answered once."""

from __future__ import annotations

import sys

import pytest
from harness.captures import Capture
from harness.hosts import MOVERS, spawn, ss
from harness.left import processes
from harness.migrate import move
from harness.wait import eventually
from harness.workloads import WORKLOADS, Client

from migrate.lab import Lab

MANY = str(WORKLOADS / "many.py")
PORT = 7700
SEED = 20
RESETS = f"tcp port {PORT} and (tcp[tcpflags] & tcp-rst != 0 or (ip6 and ip6[53] & 4 != 0))"

#: A move takes a few seconds of both processors, whoever else wants them.
HANGS_S = 240.0

pytestmark = [pytest.mark.usefixtures("clean"), pytest.mark.timeout(3 * HANGS_S)]


@pytest.mark.parametrize(("tasks", "connections"), [(1, 5000), (50, 1000)], ids=["process", "tree"])
def test_many_connections(lab: Lab, tasks: int, connections: int) -> None:
    """There and back, with half of them over IPv6."""
    origin, peer = lab.hosts["origin"], lab.hosts["peer"]
    pid = spawn(origin, [sys.executable, MANY, "serve", str(PORT), str(tasks)])
    eventually(lambda: len(ss(origin, "-l", f"sport = {PORT}")) == 2, "the server listens")
    eventually(lambda: len(processes(origin)) == tasks, "all of its processes run")
    half = str(connections // 2)
    words = ["drive", str(PORT), str(SEED), lab.service.ipv4, half, lab.service.ipv6, half]
    with Capture(peer, "eth0", RESETS) as capture:
        client = Client.start(peer, "many.py", *words)
        for start in MOVERS:
            # On a busy machine they may take longer than is allowed by itself.
            moved = move(lab, pid, "--max-gap", "60", start=start, timeout_s=HANGS_S)
            assert moved.report["connections"] == connections
            report = {
                key: moved.report[key] for key in ("frozen_ms", "isolated_ms", "gap_packets", "gap_dropped")
            }
            print(report)
            assert moved.report["gap_packets"] > 0
            assert moved.report["gap_dropped"] == 0
        result = client.ask("stop", HANGS_S)
    # Not before: the closing of all of them at once may draw a reset, as always with TIME_WAIT.
    client.end()
    print(result)
    assert result["errors"] == []
    assert result["answered"] == result["asked"] > 2 * connections
    assert capture.packets() == []
