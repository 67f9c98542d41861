"""CRIU is killed on the destination when it has let go of the tree, and before anybody has written so down.

The kernel lets the tree run then. It has met the world, so it is never taken back: no second copy at the origin.
"""

from __future__ import annotations

import pytest
from harness.wait import eventually
from kills import Bench, Migration
from kills_outcomes import assert_moved


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


def let_go(bench: Bench) -> Migration:
    """CRIU has the whole tree at its last system call and waits for the agent, which is stopped."""
    migration = Migration(bench, "SWITCHED")
    migration.kill("criu destination", signal="STOP")
    migration.go()
    migration.wait_for_journal(bench.destination, "COMMITTED")
    migration.kill("agent", signal="STOP")
    migration.kill("criu destination", signal="CONT")
    status = ["grep", "SigBlk", f"/proc/{bench.number_on(bench.destination)}/status"]
    eventually(lambda: int(bench.destination.exec(status).stdout.split()[1], 16) == 0, "CRIU lets it go")
    return migration


@pytest.mark.parametrize("by", ["guardian", "agent"])
def test_what_runs_is_not_taken_back(bench: Bench, by: str) -> None:
    migration = let_go(bench)
    migration.kill("criu destination")
    migration.kill("agent", signal="KILL" if by == "guardian" else "CONT")
    status, report = migration.end()
    assert (status, report["outcome"]) == (0, "MOVED"), report
    assert_moved(bench)


def test_what_is_killed_with_it_goes_on_at_the_origin(bench: Bench) -> None:
    """The same moment, and nothing of the tree is left."""
    migration = let_go(bench)
    pid = str(bench.number_on(bench.destination))
    bench.destination.exec(["kill", "-KILL", pid, str(migration.criu(bench.destination))])
    migration.kill("agent")
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
    bench.assert_alone("origin")
    bench.assert_streams()
