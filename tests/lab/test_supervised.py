"""A process whose parent starts another one when it dies: nobody is surprised by a second one."""

from __future__ import annotations

import sys

import pytest
from harness.hosts import ss
from harness.left import processes
from harness.migrate import move, run_migrate
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7230
#: As runit, gunicorn and many a script do.
SUPERVISOR = "import subprocess, sys\nwhile True: subprocess.call(sys.argv[1:])"


def test_a_parent_that_starts_it_again(lab: Lab) -> None:
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    server = [sys.executable, str(WORKLOADS / "obedient.py"), str(PORT)]
    parent = origin.spawn([sys.executable, "-c", SUPERVISOR, "setsid", *server])
    eventually(lambda: ss(origin, "-l", f"sport = {PORT}"), "it listens")
    (pid,) = (number for number, words in processes(origin).items() if words == " ".join(server))
    checked = run_migrate(origin, "--check", "--no-address", str(pid), "destination")
    (reason,) = checked.report["reasons"]
    assert (checked.status, reason["code"], reason["role"]) == (3, "supervised", "origin")
    assert f"(PID {parent}), the parent of" in reason["text"]
    moved = move(lab, pid, "--leave-supervisor", "--address", lab.service.ipv4)
    assert any(f"(PID {parent}) stays, and will see it die" in note for note in moved.report["notes"])
    # Under another number, if this one is taken there.
    assert " ".join(server) in processes(destination).values()
    # That is what it is about.
    eventually(
        lambda: [w for w in processes(origin).values() if w == " ".join(server)], "another was started"
    )
