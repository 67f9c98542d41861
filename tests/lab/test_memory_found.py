"""Memory for the tree is found on the destination before the freeze, and is there for CRIU when it builds."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench
from harness.migrate import Held
from harness.wait import DEADLINE_S, eventually

from migrate.lab import Host

BYTES = 96 << 20
#: No two pages are the same; says so when all of it is there.
LARGE = f"""
import os, signal
held = os.urandom({BYTES})
open("/srv/large", "w").close()
signal.pause()
"""


@pytest.fixture
def large(bench: InputBench) -> Iterator[int]:
    with bench.program(bench.origin, sys.executable, "-c", LARGE) as pid:
        eventually(lambda: "large" in bench.names(bench.origin, "/srv"), "it has all of its memory")
        yield pid
        bench.origin.exec(["rm", "-f", "/srv/large"])


def reserves(host: Host) -> list[int]:
    """The memory of each process that holds some for a tree, bytes."""
    said = host.exec(["ps", "-eo", "rss=,args="]).stdout.splitlines()
    return [int(line.split()[0]) * 1024 for line in said if "reserving.py" in line]


@contextlib.contextmanager
def frozen(bench: InputBench, pid: int) -> Iterator[Held]:
    """Its migration, which waits when the tree is frozen: all that is sent ahead has arrived."""
    held = Held(bench.origin, "FROZEN", "--max-gap", str(DEADLINE_S), pid, "destination")
    try:
        yield held
    finally:
        held.stop()


def test_it_is_held_in_the_freeze_and_given_back_for_the_build(bench: InputBench, large: int) -> None:
    with frozen(bench, large) as move:
        eventually(lambda: [one for one in reserves(bench.destination) if one > BYTES // 2], "it is held")
        move.go()
        moved = move.end()
    assert moved.report["outcome"] == "MOVED", moved
    assert reserves(bench.destination) == []
    bench.destination.exec(["kill", "-9", str(moved.report["destination_pid"])])


def test_nothing_of_it_outlives_its_agent(bench: InputBench, large: int) -> None:
    with frozen(bench, large) as move:
        eventually(lambda: reserves(bench.destination), "it is held")
        bench.destination.exec(["pkill", "-9", "-o", "-f", "migrate-agent"])
        eventually(lambda: not reserves(bench.destination), "it has ended")
        ended = move.end()
    assert ended.report["outcome"] == "ROLLED_BACK", ended
