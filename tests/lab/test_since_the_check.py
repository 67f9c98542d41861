"""What a program begins to use after the check, and CRIU would forget: it goes on where it was, and has it."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, Server, stopped_at
from harness.wait import eventually

from migrate.lab import Host

#: Does the first word when it gets SIGUSR1, and the second, which fails if that is gone, for each later one.
PROGRAM = """
import ctypes, os, signal, socket, struct, sys, threading, time
libc, done = ctypes.CDLL(None), []
def say(name): open("/run/since/" + name, "w").close()
def got(*_):
    exec(sys.argv[2] if done else sys.argv[1], globals())
    done.append(1)
    say("kept" if len(done) > 1 else "begun")
os.makedirs("/run/since", exist_ok=True)
signal.signal(signal.SIGUSR1, got)
a, b = socket.socketpair()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
say("ready")
while True: time.sleep(1000)
"""
GROUP = 'u.setsockopt(0, {}, socket.inet_aton("239.1.2.3") + socket.inet_aton("0.0.0.0"))'
THREAD = """
def own():
    libc.unshare(0x400); os.dup2(0, 77); apart.set(); kept.wait()
    os.fstat(77); say("still")
apart, kept = threading.Event(), threading.Event()
threading.Thread(target=own, daemon=True).start(); apart.wait()
"""
STILL = """
kept.set()
while not os.path.exists("/run/since/still"): time.sleep(0.01)
"""
SEMAPHORE = "i = libc.semget(0, 1, 0o1600); libc.semctl(i, 0, 16, 5)"
#: It is nobody's child, and has one end of a pipe of which the program has both.
STRANGER = """
r, w = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.closerange(3, w); open("/run/since/pid", "w").write(str(os.getpid()))
        signal.pause()
    os._exit(0)
os.wait()
while not os.path.exists("/run/since/pid"): time.sleep(0.01)
"""
STILL_THERE = """
os.write(w, b"x"); assert os.read(r, 1) == b"x"; os.kill(int(open("/run/since/pid").read()), 9)
"""
GONE = "assert libc.semctl(i, 0, 12) == 5; libc.semctl(i, 0, 0)"


@pytest.fixture
def since(bench: InputBench) -> Iterator[None]:
    yield
    for host in (bench.origin, bench.destination):
        host.exec(["rm", "-rf", "/run/since"])


@contextlib.contextmanager
def obedient(bench: InputBench, *words: str) -> Iterator[Server]:
    with (
        bench.program(bench.origin, sys.executable, "-c", PROGRAM, *words) as pid,
        socket.socket() as nothing,
    ):
        said(bench, bench.origin, "ready")
        yield Server(pid, "", 0, nothing, "")


def said(bench: InputBench, host: Host, name: str) -> None:
    eventually(lambda: name in bench.names(host, "/run/since"), name)


@pytest.mark.parametrize(
    ("begins", "has", "words"),
    [
        pytest.param(GROUP.format(35), GROUP.format(36), ["multicast group 239.1.2.3"], id="group"),
        pytest.param(THREAD, STILL, ["its own table of open files"], id="thread"),
        pytest.param(SEMAPHORE, GONE, ["System V IPC"], id="semaphore"),
        pytest.param(
            "m, s = os.openpty(); os.write(s, b'x\\n')",
            "assert os.read(m, 9) == b'x\\r\\n'; os.close(s)",
            ["/dev/pts/", "waits to be read"],
            id="terminal",
        ),
        pytest.param(
            'socket.send_fds(a, [b"x"], [0])',
            "assert len(socket.recv_fds(b, 1, 1)[1]) == 1",
            ["other descriptors wait"],
            id="in flight",
        ),
        pytest.param(
            'd = socket.socketpair(1, 2); [d[0].send(word) for word in (b"one", b"", b"two")]',
            'assert [d[1].recv(9) for _ in range(3)] == [b"one", b"", b"two"]',
            ["an empty message waits"],
            id="empty message",
        ),
        pytest.param(
            "assert libc.unshare(0x2000000) == 0",
            'assert os.readlink("/proc/self/ns/cgroup") != os.readlink("/proc/1/ns/cgroup")',
            ["another cgroup namespace"],
            id="cgroups",
        ),
        pytest.param(
            'n = socket.socket(1); os.chdir("/run/since"); n.bind("../since/n"); n.listen(); os.chdir("/")',
            'c = socket.socket(1); c.connect("/run/since/n"); n.accept()',
            ["../since/n", "(/run/since/n)", "CRIU finds no relative name"],
            id="relative name",
        ),
        pytest.param(STRANGER, STILL_THERE, ["is a pipe", "outside of the tree"], id="pipe of a stranger"),
    ],
)
def test_begun_between_check_and_freeze(
    bench: InputBench, since: None, begins: str, has: str, words: list[str]
) -> None:
    with obedient(bench, begins, has) as program, stopped_at(bench, "CHECKED", program) as run:
        bench.origin.exec(["kill", "-USR1", str(program.pid)])
        said(bench, bench.origin, "begun")
        run.go()
        found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK"), found
        found.must_say("origin", *words, "not seen when it was checked")
        bench.origin.exec(["kill", "-USR1", str(program.pid)])
        said(bench, bench.origin, "kept")
