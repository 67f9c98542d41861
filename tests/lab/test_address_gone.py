"""A service address that somebody removes from the destination: while the process is built, or when it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, stopped_at
from harness.migrate import Ran

TRIES = 5
#: Removes it as soon as a socket can be bound to it: CRIU does not run yet.
REMOVES = """
import socket, subprocess, sys
while True:
    try: socket.socket(type=socket.SOCK_DGRAM).bind((sys.argv[1], 0)); break
    except OSError: pass
subprocess.run(["ip", "address", "del", sys.argv[1] + "/24", "dev", "eth0"])
"""


@pytest.fixture(autouse=True)
def as_it_was(bench: InputBench) -> Iterator[None]:
    yield
    bench.destination.exec(["ip", "addr", "del", f"{bench.service}/24", "dev", "eth0"], check=False)
    bench.origin.exec(["ip", "addr", "replace", f"{bench.service}/24", "dev", "eth0"])


def test_removed_since_it_runs_there(bench: InputBench) -> None:
    """The process runs there, which is what the status says, and nobody reaches it, which is said, too."""
    with bench.server() as server:
        with stopped_at(bench, "ACTIVATED", server) as run:
            bench.destination.exec(["ip", "addr", "del", f"{bench.service}/24", "dev", "eth0"])
            run.go()
            found = run.end()
        bench.end_there(found, bench.service)
    assert (found.status, found.report["outcome"]) == (0, "MOVED"), found
    said = f"destination: {bench.service} is on no interface any more: clients do not reach it."
    notes = [note for note in found.report["notes"] if note.startswith(said)]
    assert notes, found.report["notes"]
    assert f"ip address add {bench.service}/24 dev eth0" in notes[0]


def test_nothing_is_said_where_it_is_there(bench: InputBench) -> None:
    with bench.server() as server:
        found = bench.moved(server)
    assert not any("no interface" in note for note in found.report["notes"]), found.report["notes"]


def test_removed_while_it_is_built(bench: InputBench) -> None:
    """CRIU says that it cannot bind a socket, which is not what went wrong."""
    found = next((one for one in (removed_in_time(bench) for _ in range(TRIES)) if one), None)
    assert found, f"it was removed too late {TRIES} times"
    assert found.report["outcome"] == "ROLLED_BACK", found
    found.must_say("destination", bench.service, "was removed from this host while CRIU built the process")


def removed_in_time(bench: InputBench) -> Ran | None:
    """A move in which CRIU has not found the address; None where it had."""
    with (
        bench.server() as server,
        bench.program(bench.destination, sys.executable, "-c", REMOVES, bench.service),
    ):
        found = bench.migrate(server.pid, "destination")
        if found.status == 0:
            bench.end_there(found, bench.service)
            return None
        server.serves()
        return found
