"""kill -9 of everything, in each state of the machine: acceptance 5.

Afterwards exactly one copy of the server runs, its connections work, and nothing is left on either host,
within 5 s and by itself; or the outcome is in doubt, after COMMIT only, and a person can decide it.
"""

from __future__ import annotations

import sys

import pytest
from harness.checkered import checkered
from harness.hosts import GROUP_WITHOUT_LEADER
from harness.left import View
from harness.wait import eventually
from kills import Bench, Migration
from kills_outcomes import (
    AFTER,
    BEFORE,
    assert_decided_in_doubt,
    assert_goes_on_at_origin,
    assert_moved,
    decide_in_doubt,
    killed_in,
    untouched_or_rolled_back,
)

from migrate.lab import Host


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


# --- kill -9 of one --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", checkered(BEFORE))
def test_driver_killed_before_commit(bench: Bench, state: str) -> None:
    """The guardians undo, on both hosts."""
    killed_in(bench, state, "driver")
    assert_goes_on_at_origin(bench)


def test_driver_killed_after_commit(bench: Bench) -> None:
    """The origin's copy stays frozen until a person decides; the destination's runs."""
    assert_decided_in_doubt(bench, killed_in(bench, "COMMITTED", "driver"))


def test_driver_killed_when_it_runs_there(bench: Bench) -> None:
    """The destination has said that it runs there: the guardian completes the move."""
    killed_in(bench, "ACTIVATED", "driver")
    assert_moved(bench)


@pytest.mark.parametrize("state", checkered(BEFORE))
def test_agent_killed_before_commit(bench: Bench, state: str) -> None:
    """The driver rolls back, the destination's guardian cleans up."""
    migration = Migration(bench, state)
    migration.kill("agent")
    status, report = migration.end()
    assert (status, report["outcome"]) == untouched_or_rolled_back(state)
    assert "agent" in report["error"]["message"]
    assert report["isolated_ms"] <= report["frozen_ms"]  # not as long as it took to ask the destination
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("state", AFTER)
def test_agent_killed_after_commit(bench: Bench, state: str) -> None:
    """It had activated the tree by then, and said so."""
    migration = Migration(bench, state)
    migration.wait_for_journal(bench.destination, "ACTIVATED")
    migration.kill("agent")
    assert migration.end()[0] == 0
    assert_moved(bench)


@pytest.mark.parametrize("state", ["CHECKED", "FROZEN"])
def test_criu_killed_on_origin_before_the_dump(bench: Bench, state: str) -> None:
    """The kernel lets go the tasks that it traced, and they run on."""
    migration = Migration(bench, state)
    migration.kill("criu origin")
    status, report = migration.end()
    assert (status, report["error"]["kind"]) == (4, "CriuError")
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("state", checkered([*BEFORE[2:], *AFTER]))
def test_criu_killed_on_origin_after_the_dump(bench: Bench, state: str) -> None:
    """It is not needed any more: the tree stays stopped by the signal that was pending."""
    migration = Migration(bench, state)
    migration.kill("criu origin")
    assert migration.end()[0] == 0
    assert_moved(bench)


@pytest.mark.parametrize("state", checkered(BEFORE))
def test_criu_killed_on_destination(bench: Bench, state: str) -> None:
    """The agent notices, kills what CRIU had built, and says so to the driver."""
    migration = Migration(bench, state)
    migration.kill("criu destination")
    status, report = migration.end()
    assert (status, report["outcome"]) == untouched_or_rolled_back(state)
    assert (report["error"]["kind"], report["error"]["role"]) == ("CriuError", "destination")
    assert_goes_on_at_origin(bench)


# --- several at once, and by hand ------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["FROZEN", "ISOLATED"])
def test_driver_and_criu_killed(bench: Bench, state: str) -> None:
    killed_in(bench, state, "driver", "criu origin")
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("state", ["RESTORED", "SWITCHED"])
def test_agent_and_criu_killed(bench: Bench, state: str) -> None:
    """The tasks that CRIU built wait for it for ever: the guardian kills them."""
    migration = Migration(bench, state)
    migration.kill("agent", "criu destination")
    assert migration.end()[0] == 4
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("state", ["FROZEN", "SWITCHED"])
def test_driver_and_guardian_killed(bench: Bench, state: str) -> None:
    """Nobody is left who could undo, so it is done by hand."""
    killed_in(bench, state, "guardian origin", "driver")
    status, report = bench.migrate("--recover")
    assert (status, report["outcome"]) == (0, "UNTOUCHED")
    assert f"process {bench.pid} goes on here" in " ".join(report["notes"])
    assert_goes_on_at_origin(bench)
    assert bench.migrate("--recover")[1]["notes"] == ["nothing was left here by a migration"]


def test_guardian_killed_and_link_lost(bench: Bench) -> None:
    """The addresses are to be announced again, and the journal removed: by another guardian."""
    migration = Migration(bench, "RESTORED")
    migration.kill("guardian origin")
    with bench.cut():
        assert migration.end()[0] == 4
        assert_goes_on_at_origin(bench, within_s=15)


def test_next_migration_clears_what_a_dead_one_left(bench: Bench) -> None:
    killed_in(bench, "ISOLATED", "guardian origin", "driver", "criu origin")
    assert bench.migrate("--check", str(bench.pid), "destination")[0] == 0
    assert_goes_on_at_origin(bench)


def test_driver_and_guardian_killed_after_commit(bench: Bench) -> None:
    migration = killed_in(bench, "COMMITTED", "guardian origin", "driver")
    decide_in_doubt(bench, migration, runs_on="destination")


def test_all_killed_on_destination(bench: Bench) -> None:
    """The origin goes on, and starts an agent there that puts the rest in order."""
    migration = Migration(bench, "SWITCHED")
    migration.kill("guardian destination", "agent", "criu destination")
    status, report = migration.end()
    assert (status, report["notes"]) == (4, [])
    assert_goes_on_at_origin(bench)


def test_all_killed_on_destination_that_cannot_be_reached(bench: Bench) -> None:
    """The origin goes on and says what may be left, until somebody, or the next migration, looks there."""
    migration = Migration(bench, "STREAMED")
    with bench.cut():
        migration.kill("guardian destination", "agent", "criu destination")
        status, report = migration.end()
    assert status == 4
    assert "destination has not confirmed" in report["notes"][0]
    assert "ssh destination 'migrate --recover'" in report["notes"][0]
    status, report = bench.migrate("--recover", host="destination")
    assert (status, "nothing of it runs here" in " ".join(report["notes"])) == (0, True)
    assert_goes_on_at_origin(bench)


def test_next_agent_clears_what_a_dead_one_left(bench: Bench) -> None:
    migration = Migration(bench, "RESTORED")
    migration.kill("guardian destination", "agent", "criu destination")
    assert migration.end()[0] == 4
    assert bench.migrate("--check", str(bench.pid), "destination")[0] == 0
    assert_goes_on_at_origin(bench)


# --- while the destination takes it ----------------------------------------------------------------------


def stop_in_activation(bench: Bench) -> Migration:
    """COMMIT has arrived, and CRIU, stopped, has not yet let the tree go."""
    migration = Migration(bench, "SWITCHED")
    migration.kill("criu destination", signal="STOP")
    migration.go()
    migration.wait_for_journal(bench.destination, "COMMITTED")
    return migration


def test_criu_killed_in_activation(bench: Bench) -> None:
    """The tree never ran there, and nothing was acknowledged that it would have had to read."""
    migration = stop_in_activation(bench)
    migration.kill("criu destination")
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")  # the destination has said so
    assert "the process does not run on the destination" in report["error"]["details"]
    assert_goes_on_at_origin(bench)


def test_agent_and_criu_killed_in_activation(bench: Bench) -> None:
    migration = stop_in_activation(bench)
    migration.kill("agent", "criu destination")
    assert migration.end()[0] == 4
    assert_goes_on_at_origin(bench)


def test_agent_killed_in_activation(bench: Bench) -> None:
    """CRIU goes on by itself: it had been told to. The guardian lets the packets in."""
    migration = stop_in_activation(bench)
    migration.kill("agent")
    migration.kill("criu destination", signal="CONT")
    status, report = migration.end()
    assert (status, report["where"]) == (0, f"runs on destination as PID {bench.pid}")
    assert_moved(bench)


# --- other processes than the server ---------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["driver", "criu origin"])
def test_stopped_process_stays_stopped(bench: Bench, victim: str) -> None:
    """One that somebody had stopped is not made to run by a rollback."""
    pid = bench.origin.spawn(["sleep", "1000"])
    bench.origin.exec(["kill", "-STOP", str(pid)])
    with bench.other(pid):
        migration = Migration(bench, "FROZEN" if "criu" in victim else "ISOLATED")
        migration.kill(victim)
        migration.process.wait(timeout=20)
        eventually(lambda: not bench.traces(bench.origin), "undone", 5)
        assert View(bench.origin).processes[pid][0][0] == "T"
    bench.assert_alone("origin")


TREE = f"{GROUP_WITHOUT_LEADER}open('/tmp/tree-is-ready', 'w'); time.sleep(1000)\n"


def own_processes(host: Host) -> list[int]:
    """Those of *host*, but for guardians of migrations before that still announce addresses."""
    view = View(host)
    return [pid for pid, one in view.processes.items() if not view.reminds(one)]


@pytest.mark.parametrize("taken", [False, True])
def test_agent_and_criu_of_a_tree_killed(bench: Bench, taken: bool) -> None:
    """Nothing is left of it either, nor of the PID namespace that it gets if a PID is taken there."""
    pid = bench.origin.spawn([sys.executable, "-c", TREE])
    ready = "rm /tmp/tree-is-ready 2>/dev/null && echo yes"
    eventually(lambda: bench.origin.exec(["sh", "-c", ready], check=False).stdout, "the tree is built")
    squatter = bench.spawn_as(bench.destination, pid, ["sleep", "2000"]) if taken else 0
    with bench.other(pid):
        migration = Migration(bench, "RESTORED")
        migration.kill("agent", "criu destination")
        migration.process.wait(timeout=20)
        eventually(lambda: not bench.traces(bench.destination), "undone", 5)
        assert set(own_processes(bench.destination)) == {squatter} - {0}
        assert len(own_processes(bench.origin)) == 3
    if taken:
        bench.destination.exec(["kill", "-9", str(squatter)])
    bench.assert_alone("origin")
