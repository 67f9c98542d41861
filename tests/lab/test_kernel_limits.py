"""Limits of the destination's kernel that are too small for the process: refused before the freeze."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_input_bench import InputBench, Server
from harness.wait import eventually

AGENT = Path(sys.executable).parent / "migrate-agent"
#: Has a descriptor of a high number, and says so.
HIGH = """
import os, sys, time
os.dup2(0, int(sys.argv[1]))
open("/run/begun", "w").close()
while True: time.sleep(1000)
"""


@pytest.fixture
def bench(bench: InputBench) -> Iterator[InputBench]:
    yield bench
    bench.origin.exec(["rm", "-f", "/run/begun"])
    bench.destination.exec(["rm", "-f", "/tmp/limited-agent"])


def limited(bench: InputBench, most: int) -> None:
    """A root who may not raise limits, as in a container, and may have so many descriptors."""
    words = f"ulimit -n {most}; exec setpriv --bounding-set -sys_resource {AGENT}"
    script = (
        f"printf '#!/bin/sh\n%s\n' {shlex.quote(words)} > /tmp/limited-agent; chmod 755 /tmp/limited-agent"
    )
    bench.destination.exec(["sh", "-c", script])


def test_a_descriptor_of_a_high_number(bench: InputBench) -> None:
    with (
        bench.server() as server,
        bench.program(bench.origin, sys.executable, "-c", HIGH, "6000") as pid,
    ):
        eventually(lambda: "begun" in bench.names(bench.origin, "/run"), "begun")
        program = Server(pid, server.address, 0, server.connection, "")
        limited(bench, 5000)
        found = bench.refused(program, "--agent", "/tmp/limited-agent")
        assert found.codes == {("high-descriptor", "destination")}
        found.must_say("destination", "descriptor 6000", f"(PID {pid})", "ulimit -Hn")
        limited(bench, 6300)
        moved = bench.migrate(pid, "destination", "--agent", "/tmp/limited-agent")
        bench.end_there(moved)
        assert moved.report["outcome"] == "MOVED", moved
