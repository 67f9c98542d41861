"""Memory that is sent in the freeze as a whole: a move, and a failure in its middle."""

from __future__ import annotations

import pytest
from kills import Bench, Migration
from kills_outcomes import assert_goes_on_at_origin, assert_moved

NONE_BEFORE = ("--memory", "none")


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


def test_a_move(bench: Bench) -> None:
    status, report = bench.migrate(*NONE_BEFORE, str(bench.pid), "destination")
    assert (status, report["outcome"]) == (0, "MOVED"), report
    assert report["image_bytes"] > 1 << 20
    assert_moved(bench)


def test_the_driver_is_killed_when_all_is_written(bench: Bench) -> None:
    migration = Migration(bench, "DUMPED", *NONE_BEFORE)
    migration.kill("driver")
    migration.killed()
    assert_goes_on_at_origin(bench)


def test_criu_is_killed_before_it_has_written_anything(bench: Bench) -> None:
    migration = Migration(bench, "FROZEN", *NONE_BEFORE)
    migration.kill("criu origin")
    assert migration.end()[0] == 4
    assert_goes_on_at_origin(bench)
