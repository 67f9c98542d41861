"""The destination's host stands still when it answers for the addresses already, and nothing is committed."""

from __future__ import annotations

import pytest
from harness.left import View
from harness.wait import eventually
from kills import Bench, Migration
from kills_outcomes import assert_goes_on_at_origin


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


def test_only_the_origin_answers(bench: Bench) -> None:
    """What the agent would have to renew ends by the kernel's clock; nobody is left who could remove it."""
    migration = Migration(bench, "SWITCHED", "--max-gap", "60")
    ours = "[m]igrate-agent|[m]igrate.recovery.guardian|[s]shd|[c]riu"
    bench.destination.exec(["pkill", "-STOP", "-f", ours])
    try:
        eventually(lambda: not bench.service & View(bench.destination).addresses, "the lease ends", 15)
        eventually(lambda: bench.service <= View(bench.origin).addresses, "the origin has them again", 15)
        bench.lab.hosts["gateway"].exec(["ip", "neigh", "flush", "all"])
        bench.assert_streams()
        status, report = migration.end()
        assert (status, report["outcome"]) == (4, "ROLLED_BACK")
        assert any("destination has not confirmed" in note for note in report["notes"]), report["notes"]
    finally:
        bench.destination.exec(["pkill", "-CONT", "-f", ours])
    assert_goes_on_at_origin(bench, 20)
