"""kill -9 of everything, a cut link and Ctrl-C, in each state of the machine: acceptance 5.

Afterwards exactly one copy of the server runs, its connections work, and nothing is left on either host,
within 5 s and by itself; or the outcome is in doubt, after COMMIT only, and a person can decide it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
from kills import Bench, Migration, View, eventually

from migrate.lab import Lab

BEFORE = ["CHECKED", "FROZEN", "DUMPED", "ISOLATED", "STREAMED", "RESTORED", "SWITCHED"]
AFTER = ["COMMITTED", "ACTIVATED"]
#: The link counts as lost after so much silence.
SILENCE_S = 5.0


@pytest.fixture(scope="module")
def the_bench(lab: Lab) -> Iterator[Bench]:
    bench = Bench(lab)
    yield bench
    bench.close()


@pytest.fixture
def bench(the_bench: Bench) -> Bench:
    return the_bench.ready()


def untouched_or_rolled_back(state: str) -> tuple[int, str]:
    """Exit status and outcome of a failure in *state*."""
    return (3, "UNTOUCHED") if state == "CHECKED" else (4, "ROLLED_BACK")


def assert_goes_on_at_origin(bench: Bench, within_s: float = 5.0) -> None:
    took_s = bench.assert_alone("origin", within_s=within_s)
    print(
        f"undone after {took_s:.2f} s, numbers on all connections after {bench.assert_streams():.2f} s more"
    )


def assert_moved(bench: Bench) -> None:
    bench.assert_alone("destination")
    bench.assert_streams()


def decide_in_doubt(bench: Bench, migration: Migration, *, runs_on: str) -> None:
    """In doubt: one copy is frozen, --recover explains, and what a person decides is carried out."""
    status, report = bench.migrate("--recover")
    assert (status, report["outcome"]) == (5, "IN_DOUBT")
    assert any(f"--resume {migration.id}" in line for line in report["instructions"])
    if runs_on == "destination":
        bench.assert_alone("destination", doubt=migration.id)
        bench.assert_streams()
    status, report = bench.migrate(str(bench.pid), "destination")
    assert (status, [reason["code"] for reason in report["reasons"]]) == (3, ["in-doubt"])
    if runs_on == "destination":
        assert bench.migrate("--recover", "--release", migration.id)[0] == 0
        assert_moved(bench)
    else:
        assert bench.migrate("--recover", "--resume", migration.id)[0] == 4
        assert_goes_on_at_origin(bench)


# --- kill -9 of one --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", BEFORE)
def test_driver_killed_before_commit(bench: Bench, state: str) -> None:
    """The guardians undo, on both hosts."""
    migration = Migration(bench, state)
    migration.kill("driver")
    migration.killed()
    assert_goes_on_at_origin(bench)


def test_driver_killed_after_commit(bench: Bench) -> None:
    """The origin's copy stays frozen until a person decides; the destination's runs."""
    migration = Migration(bench, "COMMITTED")
    migration.kill("driver")
    migration.killed()
    bench.assert_alone("destination", doubt=migration.id)
    decide_in_doubt(bench, migration, runs_on="destination")


def test_driver_killed_when_it_runs_there(bench: Bench) -> None:
    """The destination has said that it runs there: the guardian completes the move."""
    migration = Migration(bench, "ACTIVATED")
    migration.kill("driver")
    migration.killed()
    assert_moved(bench)


@pytest.mark.parametrize("state", BEFORE)
def test_agent_killed_before_commit(bench: Bench, state: str) -> None:
    """The driver rolls back, the destination's guardian cleans up."""
    migration = Migration(bench, state)
    migration.kill("agent")
    status, report = migration.end()
    assert (status, report["outcome"]) == untouched_or_rolled_back(state)
    assert "agent" in report["error"]["message"]
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


@pytest.mark.parametrize("state", [*BEFORE[2:], *AFTER])
def test_criu_killed_on_origin_after_the_dump(bench: Bench, state: str) -> None:
    """It is not needed any more: the tree stays stopped by the signal that was pending."""
    migration = Migration(bench, state)
    migration.kill("criu origin")
    assert migration.end()[0] == 0
    assert_moved(bench)


@pytest.mark.parametrize("state", BEFORE)
def test_criu_killed_on_destination(bench: Bench, state: str) -> None:
    """The agent notices, kills what CRIU had built, and says so to the driver."""
    migration = Migration(bench, state)
    migration.kill("criu destination")
    status, report = migration.end()
    assert (status, report["outcome"]) == untouched_or_rolled_back(state)
    assert (report["error"]["kind"], report["error"]["role"]) == ("CriuError", "destination")
    assert_goes_on_at_origin(bench)


# --- the link --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", BEFORE)
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
    """That it runs there was said before the cut."""
    migration = Migration(bench, state)
    with bench.cut():
        assert migration.end()[0] == 0
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
        decide_in_doubt(bench, migration, runs_on="destination")


# --- several at once, and by hand ------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["FROZEN", "ISOLATED"])
def test_driver_and_criu_killed(bench: Bench, state: str) -> None:
    migration = Migration(bench, state)
    migration.kill("driver", "criu origin")
    migration.killed()
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
    migration = Migration(bench, state)
    migration.kill("guardian origin", "driver")
    migration.killed()
    status, report = bench.migrate("--recover")
    assert (status, report["outcome"]) == (0, "UNTOUCHED")
    assert f"process {bench.pid} goes on here" in " ".join(report["notes"])
    assert_goes_on_at_origin(bench)
    assert bench.migrate("--recover")[1]["notes"] == ["nothing was left here by a migration"]


def test_next_migration_clears_what_a_dead_one_left(bench: Bench) -> None:
    migration = Migration(bench, "ISOLATED")
    migration.kill("guardian origin", "driver", "criu origin")
    migration.killed()
    assert bench.migrate("--check", str(bench.pid), "destination")[0] == 0
    assert_goes_on_at_origin(bench)


def test_driver_and_guardian_killed_after_commit(bench: Bench) -> None:
    migration = Migration(bench, "COMMITTED")
    migration.kill("guardian origin", "driver")
    migration.killed()
    decide_in_doubt(bench, migration, runs_on="destination")


def test_all_killed_on_destination(bench: Bench) -> None:
    """The origin goes on although the destination has the addresses too, until somebody looks there."""
    migration = Migration(bench, "SWITCHED")
    migration.kill("guardian destination", "agent", "criu destination")
    assert migration.end()[0] == 4
    bench.assert_streams()
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
    assert (status, report["outcome"]) == (5, "IN_DOUBT")
    assert "the process does not run on the destination" in report["error"]["details"]
    decide_in_doubt(bench, migration, runs_on="origin")


def test_agent_and_criu_killed_in_activation(bench: Bench) -> None:
    migration = stop_in_activation(bench)
    migration.kill("agent", "criu destination")
    assert migration.end()[0] == 5
    eventually(lambda: not bench.traces(bench.destination), "the guardian has undone", 5)
    decide_in_doubt(bench, migration, runs_on="origin")


def test_agent_killed_in_activation(bench: Bench) -> None:
    """CRIU goes on by itself: it had been told to. The guardian lets the packets in."""
    migration = stop_in_activation(bench)
    migration.kill("agent")
    migration.kill("criu destination", signal="CONT")
    assert migration.end()[0] == 5
    decide_in_doubt(bench, migration, runs_on="destination")


# --- signals, and a second migration ---------------------------------------------------------------------


@pytest.mark.parametrize("state", BEFORE)
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


#: A session leader and a child in a group whose leader has ended: CRIU forks a helper for that number.
TREE = """
import os, time
told, tell = os.pipe()
leader = os.fork()
if leader == 0:
    os.close(tell); os.read(told, 1); os._exit(0)
os.setpgid(leader, leader)
child = os.fork()
if child == 0:
    time.sleep(1000)
os.setpgid(child, leader)
os.write(tell, b"x"); os.waitpid(leader, 0)
open('/tmp/tree-is-ready', 'w'); time.sleep(1000)
"""


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
        assert set(View(bench.destination).processes) == {squatter} - {0}
        assert len(View(bench.origin).processes) == 3
    if taken:
        bench.destination.exec(["kill", "-9", str(squatter)])
    bench.assert_alone("origin")
