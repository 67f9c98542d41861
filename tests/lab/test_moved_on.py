"""A tree that an earlier move has given a PID namespace is moved on, and home."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest
from harness.hosts import MOVERS, listeners, spawn
from harness.left import processes
from harness.migrate import move
from harness.wait import eventually
from harness.workloads import WORKLOADS, Client, drive_numbered

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7300
NUMBERED = f"numbered.py serve {PORT}"


def serve(lab: Lab, threads: int = 1, children: int = 0) -> int:
    """A server of numbered streams on origin."""
    origin = lab.hosts["origin"]
    command = [
        sys.executable,
        str(WORKLOADS / "numbered.py"),
        "serve",
        str(PORT),
        str(threads),
        str(children),
    ]
    pid = spawn(origin, command)
    eventually(lambda: listeners(origin, PORT) == 2, "the server listens")
    return pid


def served_on(host: Host) -> set[int]:
    """The processes of the server there."""
    return {pid for pid, words in processes(host).items() if NUMBERED in words}


@contextlib.contextmanager
def taken(host: Host, pid: int) -> Iterator[None]:
    """Somebody else has *pid* there meanwhile."""
    found = spawn(host, ["sleep", "1000"], first_pid=pid)
    try:
        assert found == pid
        yield
    finally:
        host.exec(["kill", "-9", str(pid)])


def numbers(host: Host, pid: int) -> list[str]:
    """Of *pid* and of its children and their threads, each as it sees itself, in their order."""
    script = (
        f"cat /proc/{pid}/task/*/status; for one in $(pgrep -P {pid}); do cat /proc/$one/task/*/status; done"
    )
    shown = host.exec(["sh", "-c", script]).stdout.splitlines()
    return sorted(line.split()[-1] for line in shown if line.startswith("NSpid:"))


def assert_goes_on(client: Client) -> None:
    """All streams go on without an error."""
    before = client.ask()
    assert before["errors"] == []
    eventually(lambda: client.ask()["least_received"] > before["least_received"] + 20, "all streams go on")


def assert_nothing_left(host: Host, *besides: int) -> None:
    """Neither a task of the tree, nor the init of its namespace, nor anything of ours is on *host*."""
    eventually(lambda: set(processes(host)) == {*besides}, "nothing is left there")


@pytest.mark.parametrize(("threads", "children"), [(1, 0), (3, 2)])
def test_a_ring_and_home(lab: Lab, threads: int, children: int) -> None:
    """Five moves, its PID taken each time; then home, where it is free again."""
    pid = serve(lab, threads, children)
    client, at, now = drive_numbered(lab, PORT, 4), "origin", pid
    inside = numbers(lab.hosts[at], pid)
    assert len(inside) > children * threads
    for _ in range(5):
        there = MOVERS[1 - MOVERS.index(at)]
        with taken(lab.hosts[there], pid):
            moved = move(lab, now, start=at)
            before, at, now = lab.hosts[at], there, moved.report["destination_pid"]
            assert now != pid
            assert numbers(lab.hosts[at], now) == inside
            assert any(f"script that says {pid}" in note for note in moved.report["notes"])
            assert_nothing_left(before)
            assert_goes_on(client)
    assert at == "destination"
    home = move(lab, now, start=at)
    assert home.report["destination_pid"] == pid
    assert numbers(lab.hosts["origin"], pid) == inside
    assert_nothing_left(lab.hosts["destination"])
    seen = lab.hosts["origin"].exec(["grep", "NSpid", f"/proc/{pid}/status"]).stdout.split()
    assert seen == ["NSpid:", str(pid)]
    assert_goes_on(client)
    assert client.stop()["errors"] == []
