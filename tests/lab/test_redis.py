"""A redis server is moved under a client that increments a counter without pause; redis-cli is the judge."""

from __future__ import annotations

import pytest
from harness.captures import Capture
from harness.hosts import spawn
from harness.left import processes
from harness.migrate import move
from harness.tcp_rules import faults, resets
from harness.wait import eventually
from harness.workloads import Client

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

SERVER = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/"]
PORT = 6379


def cli(lab: Lab, *words: str) -> str:
    """What redis-cli on peer answers."""
    done = lab.hosts["peer"].exec(["redis-cli", "-h", lab.service.ipv4, *words], check=False)
    return done.stdout.strip()


def test_counter(lab: Lab) -> None:
    pid = spawn(lab.hosts["origin"], SERVER)
    eventually(lambda: cli(lab, "ping") == "PONG", "redis answers")
    assert cli(lab, "set", "before", "the move") == "OK"
    run_id = run_id_of(lab)
    with Capture(lab.hosts["peer"], "eth0", f"tcp port {PORT}") as capture:
        client = Client.start(lab.hosts["peer"], "redis_counter.py", lab.service.ipv4)
        before = client.ask()
        moved = move(lab, pid)
        between = client.ask()
        eventually(lambda: client.ask()["incremented"] > between["incremented"] + 100, "the client goes on")
        last = client.stop()
    assert between["incremented"] > before["incremented"]
    for said in (before, between, last):
        assert (said["error"], said["wrong_answers"], said["reconnected"]) == ("", 0, False)
    assert cli(lab, "get", "counter") == str(last["incremented"])
    assert cli(lab, "get", "before") == "the move"
    assert run_id_of(lab) == run_id
    assert "redis-server" in processes(lab.hosts["destination"])[moved.report["destination_pid"]]
    assert not [words for words in processes(lab.hosts["origin"]).values() if "redis" in words]
    silence = f"longest answer {between['longest_answer_ms']} ms"
    print(f"{last['incremented']} increments, {silence}, frozen {moved.report['frozen_ms']} ms")
    judge_capture(capture, last["local_port"])


def run_id_of(lab: Lab) -> str:
    """Redis makes a new one at each start."""
    return next(line for line in cli(lab, "info", "server").splitlines() if line.startswith("run_id:"))


def judge_capture(capture: Capture, port: int) -> None:
    """The client's connection shows no sign of the move but silence."""
    assert resets(capture.packets()) == []
    ours = [one for one in capture.connections() if port in (one.ends[0][1], one.ends[1][1])]
    assert ours and faults(ours) == []
