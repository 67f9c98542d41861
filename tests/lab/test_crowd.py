"""Thousands of connections are moved while the peer asks over all of them; every question is answered once."""

from __future__ import annotations

import subprocess
import sys

import judge
import pytest
from captures import Capture
from judge import WORKLOADS, ask, move, processes, spawn, ss, wait_for

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
    wait_for(lambda: len(ss(origin, "-l", f"sport = {PORT}")) == 2, "the server listens")
    wait_for(lambda: len(processes(origin)) == tasks, "all of its processes run")
    half = str(connections // 2)
    words = ["drive", str(PORT), str(SEED), lab.service.ipv4, half, lab.service.ipv6, half]
    with Capture(peer, "eth0", RESETS) as capture:
        client = peer.popen(
            [sys.executable, MANY, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert client.stdout.readline() == "ready\n"
        for start in judge.MOVERS:
            moved = move(lab, pid, start=start, timeout_s=HANGS_S)
            assert moved.report["connections"] == connections
            report = {
                key: moved.report[key] for key in ("frozen_ms", "isolated_ms", "gap_packets", "gap_dropped")
            }
            print(report)
            assert moved.report["gap_packets"] > 0
            assert moved.report["gap_dropped"] == 0
        result = ask(client, "stop")
    # Not before: the closing of all of them at once may draw a reset, as always with TIME_WAIT.
    client.communicate(timeout=judge.DEADLINE_S)
    print(result)
    assert result["errors"] == []
    assert result["answered"] == result["asked"] > 2 * connections
    assert capture.packets() == []
