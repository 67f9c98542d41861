"""A tree in an IPC and a UTS namespace of its own moves with what is in them: System V's objects, host names."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from harness.hosts import listeners, spawn
from harness.left import processes
from harness.migrate import Held, move, run_migrate
from harness.wait import DEADLINE_S, eventually
from harness.workloads import WORKLOADS, Client, drive_numbered

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7500
SAYS = "/tmp/own-ipc-says"
OWN = ("unshare", "--ipc", "--uts", "sh", "-c", 'hostname of-its-own; exec "$@"', "sh")


def serve(lab: Lab) -> int:
    """The server on origin; what it has belongs to a user that is not root."""
    origin = lab.hosts["origin"]
    words = [str(WORKLOADS / "own_ipc.py"), str(PORT), SAYS, "4711"]
    pid = spawn(origin, [*OWN, sys.executable, *words])
    eventually(lambda: listeners(origin, PORT) == 2, "the server listens")
    return pid


def says(host: Host, pid: int) -> dict[str, Any]:
    """What the server says now of all that it has."""
    host.exec(["sh", "-c", f"rm -f {SAYS}; kill -USR1 {pid}"])
    words = ["sh", "-c", f"cat {SAYS} 2>/dev/null"]
    return dict(json.loads(eventually(lambda: host.exec(words, check=False).stdout, "it says")))


def assert_goes_on(client: Client) -> None:
    """All streams go on without an error."""
    before = client.ask()
    assert before["errors"] == []
    eventually(lambda: client.ask()["least_received"] > before["least_received"] + 20, "all streams go on")


def assert_nothing_left(host: Host) -> None:
    eventually(lambda: not processes(host), "nothing is left there")


@contextlib.contextmanager
def taken(host: Host, pid: int) -> Iterator[None]:
    """Somebody else has *pid* there meanwhile."""
    assert spawn(host, ["sleep", "1000"], first_pid=pid) == pid
    try:
        yield
    finally:
        host.exec(["kill", "-9", str(pid)])


def test_there_and_back(lab: Lab) -> None:
    """Into a PID namespace as well, since its PID is taken there, on and home; each time all is as it was."""
    pid = now = serve(lab)
    client, at = drive_numbered(lab, PORT, 4), "origin"
    before = says(lab.hosts[at], pid)
    assert before["answered"] is True and before["hostname"] == "of-its-own"
    assert before["interrupted"] == 0
    assert before["memory"] == ["of both", "removed"] and before["value"] == 42
    assert before["messages"] == ["7 first", "3 second"]
    assert [row[2:5] for row in before["segments"]] == [
        ["2600", "163840", "2"],  # locked
        ["1600", "8192", "2"],  # removed
        ["600", "5000", "0"],
    ]
    for there in ("destination", "origin"):
        with taken(lab.hosts[there], pid):
            moved = move(lab, now, start=at)
            now = moved.report["destination_pid"]
            assert now != pid
        assert_nothing_left(lab.hosts[at])
        at = there
        assert any("SEM_UNDO" in note for note in moved.report["notes"])
        assert says(lab.hosts[at], now) == before | {"interrupted": 1}
        assert_goes_on(client)
    assert move(lab, now, start=at).report["destination_pid"] == pid  # which is free there
    assert_nothing_left(lab.hosts["origin"])
    assert says(lab.hosts["destination"], pid) == before | {"interrupted": 1}
    assert_goes_on(client)
    assert client.stop()["errors"] == []
    lab.hosts["destination"].exec(["rm", SAYS])


def test_rolled_back(lab: Lab) -> None:
    """Built on the destination, with all that is in the namespace, and not committed: it goes on where it was."""
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    pid, client = serve(lab), drive_numbered(lab, PORT, 2)
    before = says(origin, pid)
    held = Held(origin, "SWITCHED", "--max-gap", str(DEADLINE_S), pid, "destination")
    origin.exec(["kill", "-9", str(held.driver)])
    held.killed()
    assert_nothing_left(destination)
    eventually(lambda: len(processes(origin)) == 2, "the guardian has undone it")
    assert says(origin, pid) == before | {"interrupted": 1}
    assert_goes_on(client)
    assert client.stop()["errors"] == []


def test_who_else_is_in_it_is_told(lab: Lab) -> None:
    """Both would have what is in there, each a copy of its own."""
    origin = lab.hosts["origin"]
    pid = serve(lab)
    assert origin.spawn(["nsenter", "-t", str(pid), "-i", "sleep", "3000"])
    (beside,) = eventually(
        lambda: origin.exec(["pgrep", "-fx", "sleep 3000"], check=False).stdout.split(), "x"
    )
    checked = run_migrate(origin, "--check", "--no-address", pid, "destination")
    origin.exec(["kill", "-9", beside])
    assert (checked.status, checked.codes) == (3, {("ipc-beside", "origin")})
    checked.must_say("origin", f"sleep (PID {beside})", "copy")
    assert run_migrate(origin, "--check", "--no-address", pid, "destination").status == 0
