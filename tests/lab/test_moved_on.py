"""A tree that an earlier move has given a PID namespace is moved on, and home."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from harness.hosts import GROUP_WITHOUT_LEADER, MOVERS, listeners, spawn
from harness.left import processes
from harness.migrate import Ran, move, run_migrate
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


#: All that it knows by a number: its parts, and descriptors and owners of them. SIGUSR1: it says so in a file.
KNOWS = (
    GROUP_WITHOUT_LEADER
    + """
import ctypes, fcntl, json, os, signal, socket, struct, sys, threading, time
os.close(told); os.close(tell)
ended = os.fork()
if ended == 0:
    os._exit(3)
os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
thread = threading.Thread(target=time.sleep, args=(10000,), daemon=True); thread.start()
pidfd = os.pidfd_open(child)
status = os.open("/proc/self/status", os.O_RDONLY)
of_child = os.open(f"/proc/{child}/stat", os.O_RDONLY)
ours, theirs = socket.socketpair()
fcntl.fcntl(ours, fcntl.F_SETOWN, child)
locked = open("/srv/locked", "r+"); fcntl.lockf(locked, fcntl.LOCK_EX)
def say(*_):
    probe = os.fork()
    if probe == 0:
        question = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
        os._exit(struct.unpack("hhqqi4x", fcntl.fcntl(locked, fcntl.F_GETLK, question))[4] != os.getppid())
    said = {
        "own": [os.getpid(), os.getsid(0), os.getpgrp(), threading.get_native_id()],
        "thread": thread.native_id, "threads": sorted(map(int, os.listdir("/proc/self/task"))),
        "child": [child, os.getpgid(child), os.getsid(child)], "group": leader,
        "pidfd": open(f"/proc/self/fdinfo/{pidfd}").read().split("Pid:")[1].split()[0],
        "status": [one for one in os.pread(status, 9999, 0).decode().split("\\n") if one[:4] in ("Pid:", "Tgid")],
        "of child": os.pread(of_child, 999, 0).split()[0].decode(),
        "owner": fcntl.fcntl(ours, fcntl.F_GETOWN), "zombie": os.path.exists(f"/proc/{ended}"),
        "lock is another's": os.waitstatus_to_exitcode(os.waitpid(probe, 0)[1]),
        "alive": ctypes.CDLL(None).syscall(424, pidfd, 0, 0, 0),
    }
    with open("/tmp/says.new", "w") as file:
        json.dump(said, file)
    os.rename("/tmp/says.new", "/tmp/says")
signal.signal(signal.SIGUSR1, say)
say()
while True:
    time.sleep(1000)
"""
)


def says(host: Host, pid: int) -> dict[str, object]:
    """What the program KNOWS says now."""
    host.exec(["sh", "-c", f"rm -f /tmp/says; kill -USR1 {pid}"])
    words = ["sh", "-c", "cat /tmp/says 2>/dev/null"]
    return dict(json.loads(eventually(lambda: host.exec(words, check=False).stdout, "it says")))


def test_all_that_it_knows_by_number(lab: Lab) -> None:
    """A group without its leader, a zombie, a pidfd, files of /proc, the owner of a socket, a lock: as before."""
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    for host in (origin, destination):
        host.exec(["sh", "-c", "echo > /srv/locked"])
    pid = spawn(origin, [sys.executable, "-c", KNOWS])
    eventually(lambda: origin.exec(["ls", "/tmp/says"], check=False).stdout, "it has begun")
    before, now, at = says(origin, pid), pid, "origin"
    assert before["lock is another's"] == 0 and before["zombie"] is True
    for _ in range(3):
        there = MOVERS[1 - MOVERS.index(at)]
        with taken(lab.hosts[there], pid):
            moved = run_migrate(lab.hosts[at], "--no-address", "--copy-files", now, there)
            assert moved.status == 0, moved.said
            at, now = there, moved.report["destination_pid"]
            assert says(lab.hosts[at], now) == before
    home = run_migrate(destination, "--no-address", "--copy-files", now, "origin")
    assert (home.status, home.report["destination_pid"]) == (0, pid), home.said
    assert says(origin, pid) == before
    assert_nothing_left(destination)
    origin.exec(["pkill", "-9", "-f", "/srv/locked"])
    for host in (origin, destination):
        host.exec(["rm", "/srv/locked", "/tmp/says"], check=False)


class Away(NamedTuple):
    """A server that got a namespace on destination: its own PID, the one that it has there, and its peer."""

    pid: int
    there: int
    client: Client


@pytest.fixture
def away(lab: Lab) -> Away:
    pid = serve(lab)
    client = drive_numbered(lab, PORT, 2)
    with taken(lab.hosts["destination"], pid):
        return Away(pid, move(lab, pid).report["destination_pid"], client)


@contextlib.contextmanager
def mounted(host: Host, place: str) -> Iterator[None]:
    """Something has been mounted there since."""
    host.exec(["sh", "-c", f"mkdir -p {place}; mount -t tmpfs since {place}"])
    try:
        yield
    finally:
        host.exec(["umount", place])


def assert_comes_home(lab: Lab, away: Away) -> Ran:
    """It does, with its own PID, and nothing stays."""
    home = move(lab, away.there, start="destination")
    assert home.report["destination_pid"] == away.pid
    assert_nothing_left(lab.hosts["destination"])
    assert_goes_on(away.client)
    assert away.client.stop()["errors"] == []
    return home


def test_images_are_written_where_its_mounts_do_not_lead(lab: Lab, away: Away) -> None:
    """Its mounts are those of when it got them."""
    with mounted(lab.hosts["destination"], "/dev/shm"):
        assert_comes_home(lab, away)


def test_kept_still_by_a_process(lab: Lab, away: Away) -> None:
    """Where there is no cgroup to freeze it in: a keeper of this host, of a tree with other numbers."""
    remount = "mount -o remount,bind,%s /sys/fs/cgroup"
    lab.hosts["destination"].exec(["sh", "-c", remount % "ro"])
    try:
        home = assert_comes_home(lab, away)
    finally:
        lab.hosts["destination"].exec(["sh", "-c", remount % "rw"])
    assert any("kept still by a process" in note for note in home.report["notes"])


def test_check_says_where_criu_cannot_work(lab: Lab, away: Away) -> None:
    """It may be on something that was mounted since."""
    host = lab.hosts["destination"]
    with mounted(host, "/srv/since"):
        host.exec(["sh", "-c", 'cp -L "$(command -v criu)" /srv/since/criu'])
        program = ["env", "MIGRATE_CRIU=/srv/since/criu", "migrate"]
        checked = run_migrate(host, "--check", away.there, "origin", program=program)
    host.exec(["rmdir", "/srv/since"])
    assert (checked.status, checked.codes) == (3, {("namespace-mounts", "origin")})
    checked.must_say("origin", "/srv/since/criu", "mounted since")
    assert_comes_home(lab, away)


def test_check_says_what_was_mounted_over_a_file(lab: Lab) -> None:
    """It goes on with the file of before, which nobody else finds there now."""
    origin, host = lab.hosts["origin"], lab.hosts["destination"]
    for one in (origin, host):
        one.exec(["sh", "-c", "mkdir -p /srv/held; echo > /srv/held/file"])
    pid = spawn(origin, ["sh", "-c", "exec sleep 4000 3</srv/held/file"])
    with taken(host, pid):
        there = run_migrate(origin, "--no-address", pid, "destination").report["destination_pid"]
    with mounted(host, "/srv/held"):
        checked = run_migrate(host, "--check", "--no-address", there, "origin")
    assert (checked.status, checked.codes) == (3, {("hidden-file", "origin")})
    checked.must_say("origin", "/srv/held/file")
    assert run_migrate(host, "--no-address", there, "origin").report["destination_pid"] == pid
    origin.exec(["kill", "-9", str(pid)])
    for one in (origin, host):
        one.exec(["rm", "-r", "/srv/held"])


#: By SIGUSR1 it leaves a child whose parent ends.
LEAVES = """
import os, signal, time
def leave(*_):
    if os.fork() == 0:
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "5000"])
        os._exit(0)
    os.wait()
signal.signal(signal.SIGUSR1, leave)
while True:
    time.sleep(1000)
"""


def test_a_helper_that_was_left_in_the_namespace_stays(lab: Lab) -> None:
    """As one of any process does: it runs on where it is, and a note says so."""
    origin, host = lab.hosts["origin"], lab.hosts["destination"]
    pid = spawn(origin, [sys.executable, "-c", LEAVES])
    with taken(host, pid):
        there = run_migrate(origin, "--no-address", pid, "destination").report["destination_pid"]
    host.exec(["kill", "-USR1", str(there)])
    shown = eventually(lambda: host.exec(["pgrep", "-fx", "sleep 5000"], check=False).stdout, "it is left")
    home = run_migrate(host, "--no-address", there, "origin")
    assert (home.status, home.report["destination_pid"]) == (0, pid), home.said
    assert any(f"sleep (PID {int(shown)})" in note and "run on" in note for note in home.report["notes"])
    assert processes(host)[int(shown)] == "sleep 5000"
    host.exec(["kill", "-9", str(int(shown))])
    assert_nothing_left(host)
    origin.exec(["kill", "-9", str(pid)])


def test_of_a_session_that_stays(lab: Lab) -> None:
    """In a namespace its session is that of the init, which stays as well."""
    origin, host = lab.hosts["origin"], lab.hosts["destination"]
    pid = spawn(origin, ["sh", "-c", "sleep 6000 & echo $! > /tmp/job; exec sleep 7000"])
    job = int(eventually(lambda: origin.exec(["cat", "/tmp/job"], check=False).stdout, "it has begun"))
    options = ("--no-address", "--shell-job", "--leave-supervisor")
    with taken(host, job):
        there = run_migrate(origin, *options, job, "destination").report["destination_pid"]
    refused = run_migrate(host, "--no-address", there, "origin")
    assert (refused.status, refused.codes) == (3, {("shell-job", "origin")})
    origin.exec(["kill", "-9", str(pid)])  # which has not waited for it: it had the number still
    home = run_migrate(host, *options, there, "origin")
    assert (home.status, home.report["destination_pid"]) == (0, job), home.said
    assert_nothing_left(host)
    origin.exec(["kill", "-9", str(job)])
    origin.exec(["rm", "/tmp/job"])
