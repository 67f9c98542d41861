"""What surrounds a process: as it was before, or a note says what is different.

Nothing of the agent, of its SSH session or of CRIU leaks into what is restored. The judges are the program's own
system calls, from inside, and /proc and util-linux from outside.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness.hosts import connect, spawn, ss
from harness.left import processes
from harness.migrate import move, run_migrate
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

SURROUNDED = str(WORKLOADS / "surrounded.py")
PORT = 7210
#: What the notes of a move must tell, since nobody can bring it along or see it from outside.
KNOWN = {"mce", "mempolicy"}
SIGKILL, SIGTERM = "9", "15"


class Talk:
    """A connection to the program, which answers with all that it sees of itself."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._file = sock, sock.makefile("rb")

    def ask(self) -> dict[str, dict[str, Any]]:
        self._sock.sendall(b"?")
        return dict(json.loads(self._file.readline()))


@contextmanager
def talking(lab: Lab) -> Iterator[Talk]:
    with connect(lab.hosts["peer"], lab.service.ipv4, PORT) as sock:
        yield Talk(sock)


def start(lab: Lab, *wrapper: str, **environment: str) -> int:
    """Start the program on origin, in an environment of these variables alone."""
    origin = lab.hosts["origin"]
    words = ["env", "-i", "PATH=/usr/bin:/bin", *(f"{name}={value}" for name, value in environment.items())]
    pid = spawn(origin, [*wrapper, *words, sys.executable, SURROUNDED, str(PORT)])
    eventually(lambda: ss(origin, "-l", f"sport = {PORT}"), "the program listens")
    return pid


def from_outside(host: Host, pid: int) -> str:
    """The same for each thread as util-linux and /proc show it."""
    script = f"""
    for thread in $(ls /proc/{pid}/task); do
        taskset -p $thread; ionice -p $thread; chrt -p $thread; cat /proc/$thread/timerslack_ns
    done
    cd /proc/{pid} && cat coredump_filter oom_score_adj personality loginuid sessionid limits
    grep -E '^(Umask|Groups|Uid|Gid|NoNewPrivs|Seccomp|Cap|Sig[BIC]|Cpus_allowed:|THP)' status
    tr '\\0' '\\n' < environ
    """
    return host.exec(["sh", "-c", script]).stdout


def different(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        f"{part}: {name}": (value, after[part][name])
        for part, values in before.items()
        for name, value in values.items()
        if after[part][name] != value and name not in KNOWN
    }


@pytest.mark.parametrize("groups", ["", "4 100 1234"])
def test_all_is_as_it_was(lab: Lab, groups: str) -> None:
    pid = start(lab, GROUPS_WANTED=groups)
    with talking(lab) as talk:
        before, seen = talk.ask(), from_outside(lab.hosts["origin"], pid)
        # It can only be kept if it is there at all.
        assert before["first"]["affinity"] != before["second"]["affinity"]
        assert before["process"]["groups"] == sorted(map(int, groups.split()))
        assert before["process"]["coredump_filter"].endswith("7f")
        assert before["process"]["autogroup"] in ("7", "")
        moved = move(lab, pid)
        assert different(before, talk.ask()) == {}
        assert from_outside(lab.hosts["destination"], pid) == seen
        assert [note for note in moved.report["notes"] if "process" in note] == []


def test_in_a_pid_namespace(lab: Lab) -> None:
    """The threads have other numbers on the destination, and their own again at home."""
    pid = start(lab, GROUPS_WANTED="")
    assert spawn(lab.hosts["destination"], ["sleep", "1000"], first_pid=pid) == pid
    with talking(lab) as talk:
        before = talk.ask()
        moved = move(lab, pid)
        there = moved.report["destination_pid"]
        assert there != pid
        assert different(before, talk.ask()) == {}
        home = move(lab, there, start="destination")
        assert home.report["destination_pid"] == pid
        assert different(before, talk.ask()) == {}


def test_the_agent_is_restricted_and_the_process_is_not(lab: Lab) -> None:
    """What is not set at all is not set there either: nothing of a tuned agent comes along."""
    destination = lab.hosts["destination"]
    wrapper = "#!/bin/sh\nexec taskset 1 ionice -c 3 setarch -R migrate-agent\n"
    destination.exec(["sh", "-c", f"printf '%s' '{wrapper}' > /tmp/tuned; chmod +x /tmp/tuned"])
    pid = spawn(lab.hosts["origin"], [sys.executable, str(WORKLOADS / "obedient.py"), str(PORT)])
    eventually(lambda: ss(lab.hosts["origin"], "-l", f"sport = {PORT}"), "it listens")
    seen = from_outside(lab.hosts["origin"], pid)
    move(lab, pid, "--agent", "/tmp/tuned", "--address", lab.service.ipv4)
    assert from_outside(destination, pid) == seen
    destination.exec(["rm", "/tmp/tuned"])


@pytest.mark.parametrize(("number", "name"), [(SIGKILL, "SIGKILL"), (SIGTERM, "SIGTERM")])
def test_nobody_sends_it_the_signal_of_its_parents_death(lab: Lab, number: str, name: str) -> None:
    pid = start(lab, PARENTS_DEATH=number)
    destination = lab.hosts["destination"]
    with talking(lab) as talk:
        moved = move(lab, pid)
        # CRIU, which was its parent, has ended by now.
        eventually(lambda: "criu" not in " ".join(processes(destination).values()), "CRIU has ended")
        assert talk.ask()["first"]["parent's death"] == 0
        assert pid in processes(destination)
    notes = [note for note in moved.report["notes"] if "PR_SET_PDEATHSIG" in note]
    assert len(notes) == 1
    assert f"process {pid} wanted {name} when its parent dies" in notes[0]


def test_a_process_that_may_write_no_file(lab: Lab) -> None:
    """CRIU's log, which its restorer writes as this very process, is no longer than its limit either."""
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    pid = spawn(origin, ["prlimit", "--fsize=0", "sleep", "1000"])
    assert run_migrate(origin, str(pid), "destination").report["outcome"] == "MOVED"
    limit = ["prlimit", "--noheadings", "--fsize", "-o", "SOFT", "-p", str(pid)]
    assert destination.exec(limit).stdout.split() == ["0"]


def test_what_cannot_be_kept_is_told(lab: Lab) -> None:
    """A memory policy is not carried, which the check says too."""
    pid = start(lab)
    with talking(lab):
        checked = run_migrate(lab.hosts["origin"], "--check", str(pid), "destination")
        moved = move(lab, pid)
    for report in (checked.report, moved.report):
        assert any(note.startswith("the memory policy interleave:0 of") for note in report["notes"]), report


def test_a_deadline_policy_is_refused(lab: Lab) -> None:
    command = ["chrt", "-d", "-T", "1000000", "-D", "10000000", "-P", "10000000", "0", "sleep", "1000"]
    pid = spawn(lab.hosts["origin"], command)
    checked = run_migrate(lab.hosts["origin"], "--check", str(pid), "destination")
    assert (checked.status, [one["code"] for one in checked.report["reasons"]]) == (3, ["scheduling"])
