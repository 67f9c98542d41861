"""A cut link, Ctrl-C and a second migration, in each state of the machine; all is as after :mod:`test_kills`."""

from __future__ import annotations

import time

import pytest
from harness.checkered import checkered
from harness.wait import eventually
from kills import Bench, Migration
from kills_outcomes import (
    AFTER,
    BEFORE,
    assert_goes_on_at_origin,
    assert_moved,
    decide_in_doubt,
    untouched_or_rolled_back,
)

#: The link counts as lost after so much silence.
SILENCE_S = 5.0


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


# --- the link --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", checkered(BEFORE))
def test_link_cut_before_commit(bench: Bench, state: str) -> None:
    """Both sides notice by the silence, at about the same time, and neither hears of the other."""
    migration = Migration(bench, state)
    with bench.cut():
        began = time.monotonic()
        status, report = migration.end()
        assert time.monotonic() - began > SILENCE_S - 2
        assert (status, report["outcome"]) == untouched_or_rolled_back(state)
        assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("state", AFTER)
def test_link_cut_after_commit(bench: Bench, state: str) -> None:
    """That it runs there was said before the cut; nobody could ask whether it still does."""
    migration = Migration(bench, state)
    with bench.cut():
        status, report = migration.end()
        assert status == 0
        assert report["where"] == f"ran on destination as PID {bench.pid} when it was last seen there"
        bench.assert_alone("destination", within_s=SILENCE_S + 5)
        bench.assert_streams()


def test_commit_is_lost(bench: Bench) -> None:
    """The destination never got the process; a person finds out and lets it go on at the origin."""
    migration = Migration(bench, "SWITCHED")
    with bench.cut():
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (5, "IN_DOUBT")
        assert any(f"--release {migration.id}" in line for line in report["instructions"])
    eventually(lambda: not bench.traces(bench.destination), "the destination has undone", 10)
    decide_in_doubt(bench, migration, runs_on="origin")


def test_answer_to_commit_is_lost(bench: Bench) -> None:
    """The destination has the process, and the origin cannot know."""
    migration = Migration(bench, "SWITCHED")
    with bench.cut(("input",)):
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (5, "IN_DOUBT")
        decide_by_force(bench, migration)


def decide_by_force(bench: Bench, migration: Migration) -> None:
    """The destination cannot be asked: nothing is done on somebody's word alone, unless he insists."""
    status, report = bench.migrate("--recover")
    assert (status, report["outcome"]) == (5, "IN_DOUBT")
    assert any(f"--release {migration.id}" in line for line in report["instructions"])
    status, report = bench.migrate("--recover", "--release", migration.id)
    assert (status, "cannot be asked" in report["error"]["message"]) == (5, True)
    bench.assert_alone("destination", doubt=migration.id)
    status, report = bench.migrate("--recover", host="destination")
    assert f"PID {bench.pid}: runs here" in " ".join(report["notes"])
    assert bench.migrate("--recover", "--release", migration.id, "--force")[0] == 0
    assert_moved(bench)


def test_a_signal_in_doubt(bench: Bench) -> None:
    """It waits at the copy here, which may never run again."""
    migration = Migration(bench, "SWITCHED")
    with bench.cut(("input",)):
        migration.go()
        migration.wait_for_journal(bench.origin, "COMMITTED")
        bench.origin.exec(["kill", "-TERM", str(bench.pid)])
        status, report = migration.end()
        assert (status, report["outcome"]) == (5, "IN_DOUBT")
        told = [one for one in report["notes"] if f"process {bench.pid} was sent SIGTERM here" in one]
        assert len(told) == 1 and "if it runs on destination" in told[0], report["notes"]
    assert bench.migrate("--recover")[0] == 0
    assert_moved(bench)


# --- signals, and a second migration ---------------------------------------------------------------------


@pytest.mark.parametrize("state", checkered(BEFORE))
def test_interrupted_before_commit(bench: Bench, state: str) -> None:
    """Ctrl-C, and SIGTERM."""
    migration = Migration(bench, state)
    name = "TERM" if state in ("DUMPED", "SWITCHED") else "INT"
    migration.kill("driver", signal=name)
    status, report = migration.end()
    assert (status, report["outcome"]) == untouched_or_rolled_back(state)
    assert report["error"]["message"] == f"stopped by SIG{name}"
    assert_goes_on_at_origin(bench, within_s=2)


@pytest.mark.parametrize("state", AFTER)
def test_interrupted_after_commit(bench: Bench, state: str) -> None:
    """Too late: what was begun is completed."""
    migration = Migration(bench, state)
    migration.kill("driver", signal="INT")
    assert migration.end()[0] == 0
    assert_moved(bench)


def test_second_migration_is_refused(bench: Bench) -> None:
    migration = Migration(bench, "FROZEN")
    status, report = bench.migrate(str(bench.pid), "destination")
    assert (status, [reason["code"] for reason in report["reasons"]]) == (3, ["busy"])
    assert bench.migrate("--recover")[1]["notes"] == [f"migration {migration.id}: under way, left alone"]
    migration.go()
    assert migration.end()[0] == 0
    assert_moved(bench)


def test_restored_process_is_on_its_own(bench: Bench) -> None:
    """It outlives the SSH session that restored it, and holds nothing of the agent's."""
    look = f"ls -l /proc/{bench.pid}/fd | awk '{{print $9, $10, $11}}' | sed 's/\\[[0-9]*\\]//'"
    before = bench.origin.exec(["sh", "-c", look]).stdout
    migration = Migration(bench, "ACTIVATED")
    migration.go()
    assert migration.end()[0] == 0
    assert_moved(bench)
    assert bench.destination.exec(["sh", "-c", look]).stdout == before
    ids = bench.destination.exec(["ps", "-o", "ppid=,pgid=,sid=,tpgid=", "-p", str(bench.pid)]).stdout.split()
    assert ids == ["1", str(bench.pid), str(bench.pid), "-1"]
