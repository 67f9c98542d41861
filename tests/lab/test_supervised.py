"""A process whose parent starts another one when it dies: nobody is surprised by a second one."""

from __future__ import annotations

import sys

import pytest
from harness.hosts import ss
from harness.left import processes
from harness.migrate import move, run_migrate
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Host, Lab

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


#: Waits for the end of a process that is not its child, and ends itself.
WATCHER = "import os, select, sys\nselect.select([os.pidfd_open(int(sys.argv[1]))], [], [])"
#: Has a worker whose parent has ended.
DAEMON = "import os, time\nif not os.fork():\n os.fork() or time.sleep(99)\n os._exit(0)\nos.wait()\ntime.sleep(99)"


def test_who_stays_and_is_told_nothing_of_the_move(lab: Lab) -> None:
    """Who has a pidfd sees the process end, and a worker that is not below it stays: notes say so before."""
    origin = lab.hosts["origin"]
    pid = origin.spawn([sys.executable, "-c", DAEMON])
    eventually(lambda: len(workers(origin, pid)) == 1, "its worker is alone")
    [worker] = workers(origin, pid)
    watcher = origin.spawn([sys.executable, "-c", WATCHER, str(pid)])
    eventually(lambda: has_pidfd(origin, watcher), "it watches")
    checked = run_migrate(origin, "--check", "--no-address", str(pid), "destination")
    notes = "\n".join(checked.report["notes"])
    assert checked.status == 0, checked.report
    assert f"(PID {worker}): of a session or process group of" in notes
    assert f"(PID {watcher}), which stays, has a pidfd of" in notes
    moved = run_migrate(origin, "--no-address", str(pid), "destination")
    assert (moved.status, moved.report["notes"]) == (0, checked.report["notes"][:-1])
    eventually(lambda: watcher not in processes(origin), "it has seen the process end")
    assert workers(origin, pid) == [worker]


def has_pidfd(host: Host, pid: int) -> bool:
    return "pidfd" in host.exec(["ls", "-l", f"/proc/{pid}/fd"]).stdout


def workers(host: Host, session: int) -> list[int]:
    """Processes of the session that are no child of its leader, which is none of them."""
    lines = host.exec(["ps", "-eo", "pid=,ppid=,sid="]).stdout.splitlines()
    found = [tuple(map(int, line.split())) for line in lines]
    return [pid for pid, parent, sid in found if sid == session and session not in (pid, parent)]
