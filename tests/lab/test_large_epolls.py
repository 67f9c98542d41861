"""An epoll that watches thousands: CRIU does not ask what each of them is, if that can be known otherwise."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench
from harness.migrate import Held
from harness.wait import DEADLINE_S, eventually

from migrate.inventory import epolls

PLACE = "/srv/epoll"
#: Watches both ends of socket pairs. At SIGUSR1 the first number becomes that of another file, while what it was is
#: open under another one; at SIGUSR2 it writes to each socket in turn, and says how many of them are told of right.
WATCHING = f"""
import json, os, resource, select, signal, socket
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
def say(what, text=""):
    os.makedirs("{PLACE}", exist_ok=True)
    open("{PLACE}/new", "w").write(text); os.rename("{PLACE}/new", "{PLACE}/" + what)
pairs = [[one.detach() for one in socket.socketpair()] for _ in range({epolls.MANY // 2})]
epoll = select.epoll()
for one in sum(pairs, []): epoll.register(one, select.EPOLLIN)
others = {{a: b for pair in pairs for a, b in (pair, pair[::-1])}}
names = {{one: one for one in others}}
say("ready")
while signal.sigwait([signal.SIGUSR1, signal.SIGUSR2]) == signal.SIGUSR1:
    number = pairs[0][0]
    names[number] = os.dup(number)
    os.dup2(os.pipe()[0], number)
    say("changed")
right = 0
for number, other in others.items():
    os.write(names[other], b"x")
    right += epoll.poll(0) == [(number, select.EPOLLIN)]
    os.read(names[number], 1)
say("said", json.dumps(right))
signal.pause()
"""


@pytest.fixture
def watching(bench: InputBench) -> Iterator[int]:
    with bench.program(bench.origin, sys.executable, "-c", WATCHING) as pid:
        try:
            eventually(lambda: "ready" in bench.names(bench.origin, PLACE), "it watches all")
            yield pid
        finally:
            for host in (bench.origin, bench.destination):
                host.exec(["rm", "-rf", PLACE])


@contextlib.contextmanager
def held(bench: InputBench, state: str, pid: int) -> Iterator[Held]:
    """Its migration, waiting in *state*."""
    move = Held(bench.origin, state, "--max-gap", str(DEADLINE_S), pid, "destination")
    try:
        yield move
    finally:
        move.stop()


def filters(bench: InputBench) -> list[str]:
    """Of each CRIU at the origin, whether it has a filter of system calls."""
    script = "for pid in $(pgrep -x criu); do grep ^Seccomp: /proc/$pid/status; done"
    return [line.split()[1] for line in bench.origin.exec(["sh", "-c", script]).stdout.splitlines()]


def ends_well(bench: InputBench, move: Held) -> None:
    """It has moved, and is told of each socket right."""
    move.go()
    moved = move.end()
    assert moved.report["outcome"] == "MOVED", moved
    pid = str(moved.report["destination_pid"])
    bench.destination.exec(["kill", "-USR2", pid])
    eventually(lambda: "said" in bench.names(bench.destination, PLACE), "it has tried all")
    assert bench.read(bench.destination, f"{PLACE}/said") == str(epolls.MANY // 2 * 2)
    bench.destination.exec(["kill", "-9", pid])


def test_it_is_not_asked_and_all_is_right(bench: InputBench, watching: int) -> None:
    with held(bench, "FROZEN", watching) as move:
        assert filters(bench) == ["2"]
        ends_well(bench, move)


def test_one_that_has_changed_before(bench: InputBench, watching: int) -> None:
    change(bench, watching)
    with held(bench, "FROZEN", watching) as move:
        assert filters(bench) == ["0"]
        ends_well(bench, move)


def test_one_that_changes_when_all_is_ready(bench: InputBench, watching: int) -> None:
    """It is let go and frozen once more, by one that asks."""
    with held(bench, "CHECKED", watching) as move:
        change(bench, watching)
        ends_well(bench, move)


def change(bench: InputBench, pid: int) -> None:
    bench.origin.exec(["kill", "-USR1", str(pid)])
    eventually(lambda: "changed" in bench.names(bench.origin, PLACE), "a number is another file's")
