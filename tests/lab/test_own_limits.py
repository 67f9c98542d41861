"""A process at limits of its own, under which CRIU works in it: it moves, or is refused before the freeze."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from bad_input_bench import InputBench, Server, stopped_at
from harness.wait import eventually

from migrate.lab import Host

#: Opens all that it may when SIGUSR1 comes, and says how many that were; a server beside.
PROGRAM = """
import ctypes, os, resource, signal, socket, struct, sys, threading
def fill(*_):
    found = 0
    if sys.argv[3] == "signals":
        while signal.sigtimedwait([signal.SIGRTMIN], 0): found += 1
        return os.write(told, b"%d " % found)
    try:
        while True: found += bool(os.dup(2))
    except OSError: pass
    os.write(told, b"%d " % found)
told = os.open("/run/filled", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
signal.signal(signal.SIGUSR1, fill)
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
connection, _ = listener.accept()
if sys.argv[3] == "addresses":
    size = int(open("/proc/self/statm").read().split()[0]) * 4096 + (64 << 10)
    resource.setrlimit(resource.RLIMIT_AS, (size, int(sys.argv[4]) or size))
if sys.argv[3] == "signals":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    libc, none = ctypes.CDLL(None), ctypes.c_void_p()
    for _ in range(int(sys.argv[4])): assert libc.sigqueue(os.getpid(), int(signal.SIGRTMIN), none) == 0
if sys.argv[3] == "locked":
    # MCL_FUTURE, or MCL_CURRENT as well; then without CAP_IPC_LOCK, as most users.
    libc, most = ctypes.CDLL(None), resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    assert libc.mlockall(2 if int(sys.argv[4]) else 3) == 0
    assert libc.capset(struct.pack("2I", 0x20080522, 0), bytes(24)) == 0
    size = 1024 * int(open("/proc/self/status").read().split("VmLck:")[1].split()[0]) + (64 << 10)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (size, most) if int(sys.argv[4]) else (most, most))
if sys.argv[3] == "descriptors":
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[4])))
if sys.argv[3] == "descriptors" and sys.argv[5] == "now": fill()
while data := connection.recv(4096): connection.sendall(data)
"""
LARGE = str(1 << 40)


@contextmanager
def at_its_limit(bench: InputBench, kind: str, hard: str, when: str = "now") -> Iterator[Server]:
    port = bench.free_port()
    words = [sys.executable, "-c", PROGRAM, bench.service, str(port), kind, hard, when]
    with bench.program(bench.origin, *words) as pid:
        bench.origin.exec(["sh", "-c", f"until ss -Hltn | grep -q :{port}; do sleep 0.05; done"])
        with bench.connect(bench.service, port) as connection:
            server = Server(pid, bench.service, port, connection, "")
            server.serves()
            yield server
    for host in (bench.origin, bench.destination):
        host.exec(["rm", "-f", "/run/filled"])


def limits(host: Host, pid: int) -> list[tuple[int, int]]:
    return [
        resource.prlimit(host.host_pid(pid), kind)
        for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_MEMLOCK)
    ]


@pytest.mark.parametrize(("kind", "hard"), [("descriptors", "128"), ("addresses", LARGE), ("locked", "1")])
def test_what_the_hard_limit_allows_is_lent(bench: InputBench, kind: str, hard: str) -> None:
    with at_its_limit(bench, kind, hard) as server:
        before = limits(bench.origin, server.pid)
        bench.moved(
            server,
            "--copy-files",
            then=lambda: compare(before, limits(bench.destination, bench.pid_there)),
        )


def compare(before: object, after: object) -> None:
    assert after == before


@pytest.mark.parametrize("kind", ["descriptors", "addresses", "locked"])
def test_refused_before_the_freeze(bench: InputBench, kind: str) -> None:
    with at_its_limit(bench, kind, "64" if kind == "descriptors" else "0") as server:
        found = bench.refused(server, "--copy-files")
    assert found.codes == {(f"cramped-{kind}", "origin")}
    found.must_say("origin", f"prlimit --pid {server.pid} --")


def test_it_has_come_to_its_limit_since_the_check(bench: InputBench) -> None:
    with at_its_limit(bench, "descriptors", "64", "later") as server:
        with stopped_at(bench, "CHECKED", server, "--copy-files") as run:
            bench.origin.exec(["kill", "-USR1", str(server.pid)])
            bench.origin.exec(["sh", "-c", "until [ -s /run/filled ]; do sleep 0.05; done"])
            run.go()
            found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK")
        found.must_say("origin", "as many descriptors as it may have", "not seen when it was checked")
        server.serves()


@pytest.mark.parametrize("number", ["-TERM", "-KILL"])
def test_a_limit_that_was_lent_is_taken_back(bench: InputBench, number: str) -> None:
    """By the driver that rolls back, and by the guardian of one that was killed."""
    with at_its_limit(bench, "descriptors", "128") as server, bench.nothing_left():
        before = limits(bench.origin, server.pid)
        with stopped_at(bench, "DUMPED", server, "--copy-files"):
            lent = limits(bench.origin, server.pid)
            bench.origin.exec(["pkill", number, "-f", "bin/migrate --json"])
            server.serves()
        eventually(lambda: limits(bench.origin, server.pid) == before, "the limits of before")
        assert lent != before


def test_signals_that_wait(bench: InputBench) -> None:
    """More than the destination takes: refused, until the limit there is another one; then all wait there."""
    agent = "/run/agent"
    words = f"echo 'prlimit --pid $$ --sigpending=1500:1500 && exec migrate-agent \"$@\"' >> {agent}"
    bench.destination.exec(["sh", "-c", f"echo '#!/bin/sh' > {agent} && {words} && chmod +x {agent}"])
    with at_its_limit(bench, "signals", "2000") as server:
        found = bench.refused(server, "--copy-files", "--agent", agent)
        assert found.codes == {("queued-signals", "destination")}
        found.must_say("destination", "--sigpending=2")
        bench.moved(server, "--copy-files", then=lambda: drained(bench.destination, bench.pid_there))
    bench.destination.exec(["rm", agent])


def drained(host: Host, pid: int) -> None:
    host.exec(["kill", "-USR1", str(pid)])
    eventually(lambda: host.exec(["cat", "/run/filled"]).stdout == "2000 ", "all are there")
