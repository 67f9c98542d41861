"""Several processes, named in one command: one after the other, and none if one of them is refused."""

from __future__ import annotations

import json
import sys
from subprocess import PIPE, Popen
from typing import Any

import pytest
from harness import json_lines
from harness.hosts import connect, listeners, spawn
from harness.left import processes
from harness.migrate import COMMAND_S, run_migrate
from harness.wait import DEADLINE_S, eventually

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

SERVER = """import os, socket, sys, time
open("/proc/self/comm", "w").write(sys.argv[1])
address = sys.argv[2]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.create_server((address, int(sys.argv[3])), family=family)
if "eventfd" in sys.argv:
    os.eventfd(1, os.EFD_SEMAPHORE)
while True:
    connection, _ = listener.accept()
    while data := connection.recv(100):
        connection.sendall(data)
"""
FOUR, SIX = "10.77.1.100", "fd77:1::100"


def serve(lab: Lab, name: str, address: str, port: int, *more: str) -> int:
    origin = lab.hosts["origin"]
    pid = spawn(origin, [sys.executable, "-c", SERVER, name, address, str(port), *more])
    eventually(lambda: listeners(origin, port) == 1, f"{name} listens")
    return pid


def move(host: Host, *words: object) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Exit status, all lines, and the summary."""
    done = host.exec(["migrate", "--json", *map(str, words)], check=False, timeout=3 * COMMAND_S)
    assert "Traceback" not in done.stderr, done.stderr
    lines = json_lines.read(done.stdout)
    assert lines[-1]["event"] == "summary" and lines[-1]["exit_status"] == done.returncode, lines[-1]
    return done.returncode, lines, lines[-1]


def outcomes(summary: dict[str, Any]) -> list[str]:
    return [one["outcome"] for one in summary["processes"]]


def test_two_move_and_their_clients_do_not_notice(lab: Lab) -> None:
    origin, peer = lab.hosts["origin"], lab.hosts["peer"]
    first, second = serve(lab, "first", FOUR, 7431), serve(lab, "second", SIX, 7432)
    with connect(peer, FOUR, 7431) as one, connect(peer, SIX, 7432) as other:
        status, _, checked = move(origin, "--check", first, ":7432", "destination")
        assert (status, outcomes(checked)) == (0, ["READY", "READY"])
        status, lines, summary = move(origin, first, ":7432", "destination")
        for client in (one, other):
            client.sendall(b"still there?")
            assert client.recv(100) == b"still there?"
    assert (status, outcomes(summary)) == (0, ["MOVED", "MOVED"]), summary
    told = [(one["named"], one["pid"], one["program"]) for one in summary["processes"]]
    assert told == [(str(first), first, "first"), (":7432", second, "second")]
    assert [one["where"] for one in summary["processes"]] == [
        one["where"] for one in lines if one["event"] == "report" and one["outcome"] == "MOVED"
    ]
    assert not {first, second} & set(processes(origin))


def test_none_is_touched_if_one_is_refused_unless_it_is_to_go_on(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    good, bad = serve(lab, "good", FOUR, 7433), serve(lab, "bad", SIX, 7434, "eventfd")
    before = origin.exec(["cat", f"/proc/{good}/stat"]).stdout
    status, lines, summary = move(origin, good, bad, "destination")
    assert (status, outcomes(summary)) == (3, ["not begun", "UNTOUCHED"])
    assert origin.exec(["cat", f"/proc/{good}/stat"]).stdout.split()[2:10] == before.split()[2:10]
    assert not [one for one in lines if one.get("name") == "prepare"]
    text = origin.exec(["migrate", str(good), str(bad), "destination"], check=False).stdout
    assert text.splitlines()[-1].startswith(f"{bad}") and "EFD_SEMAPHORE" in text.splitlines()[-1]
    status, _, summary = move(origin, "--keep-going", bad, good, "destination")
    assert (status, outcomes(summary)) == (3, ["UNTOUCHED", "MOVED"])
    assert run_migrate(origin, "--check", good).status == 3


def test_ctrl_c_ends_the_one_that_is_under_way_and_begins_no_other(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    first, second = serve(lab, "first", FOUR, 7435), serve(lab, "second", SIX, 7436)
    words = [
        "migrate",
        "--json",
        "--stop-at",
        "DUMPED",
        "--keep-going",
        str(first),
        str(second),
        "destination",
    ]
    running: Popen[str] = origin.popen(words, stdout=PIPE, stderr=PIPE, text=True)
    try:
        assert running.stdout is not None
        for line in running.stdout:
            text = str(json.loads(line).get("text", ""))
            if text.startswith("stopped at DUMPED (driver "):
                origin.exec(["kill", "-INT", text.split("driver ")[1].rstrip(")")])
                break
        *_, last = running.stdout
        assert running.wait(DEADLINE_S) == 4
    finally:
        running.kill()
        running.communicate()
    assert outcomes(json.loads(last)) == ["ROLLED_BACK", "not begun"]
    assert {first, second} <= set(processes(origin))
