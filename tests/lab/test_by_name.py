"""A process named by its program, or by the port on which it listens."""

from __future__ import annotations

import pytest
from harness.hosts import spawn
from harness.migrate import run_migrate
from harness.wait import eventually

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

#: A master and its worker share the listener, and both their name.
SERVER = """import os, socket, sys, time
open("/proc/self/comm", "w").write(sys.argv[1])
listener = socket.create_server(("10.77.1.100", int(sys.argv[2])))
os.fork()
time.sleep(1000)
"""


def serve(lab: Lab, name: str, port: int) -> int:
    """The master's PID, when its worker runs."""
    origin = lab.hosts["origin"]
    pid = spawn(origin, ["python3", "-c", SERVER, name, str(port)])
    worker = ["pgrep", "-x", "-P", str(pid), name]
    eventually(lambda: origin.exec(worker, check=False).stdout.strip(), f"the worker of {name} runs")
    return pid


def test_both_ways_lead_to_the_root_and_it_moves(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    pid = serve(lab, "wanted", 7401)
    for word in ("wanted", ":7401"):
        checked = run_migrate(origin, "--check", word, "destination")
        assert (checked.status, checked.report["pid"]) == (0, pid), checked.said
        assert checked.report["program"] == "wanted"
    moved = run_migrate(origin, ":7401", "destination")
    assert (moved.status, moved.report["pid"]) == (0, pid), moved.said
    # The name is that of a process there now.
    assert ("no-process", "origin") in run_migrate(origin, "wanted", "destination").codes


def test_none_and_several_are_refused_with_their_pids(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    first, second = serve(lab, "twin", 7402), serve(lab, "twin", 7403)
    serve(lab, "other", 7404)
    several = run_migrate(origin, "--check", "twin", "destination")
    assert several.status == 3
    several.must_say("origin", "2 processes are called twin", f"PID {first}", f"PID {second}")
    run_migrate(origin, "--check", ":7499", "destination").must_say(
        "origin", "nobody listens at TCP port 7499"
    )
    by_file = run_migrate(origin, "--check", "python3.11", "destination")
    assert by_file.status == 3 and ("several-processes", "origin") in by_file.codes, by_file.said
