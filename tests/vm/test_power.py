"""The power of one of the two is cut in the middle of a move, or the link between them: it runs in one place.

Nobody says goodbye, and whoever comes back has an empty /run: no journal, no guardian, addresses as configured.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.hosts import MOVERS
from harness.left import assert_service_on
from harness.wait import eventually
from kills import Bench, Migration
from kills_outcomes import AFTER, BEFORE

from migrate.lab.vm.lab import VmLab

#: In which states only `make test-vm-all` cuts the origin's power.
MORE = ("CHECKED", "FROZEN", "DUMPED", "ISOLATED", "STREAMED", "RESTORED", "ACTIVATED")


#: Those that stand still do not count; what a frozen cgroup holds looks as if it slept.
COUNT = """
for pid in $(pgrep -f '[n]umbered.py serve'); do
    group=$(sed -n s,^0::,,p /proc/$pid/cgroup)
    grep -q '^State:.*[TtD]' /proc/$pid/status || grep -qs 'frozen 1' "/sys/fs/cgroup$group/cgroup.events" || echo
done | wc -l
"""


def servers(lab: VmLab) -> dict[str, int]:
    """How many servers run on each host, which must be on."""
    return {name: int(lab.hosts[name].exec(["sh", "-c", COUNT]).stdout) for name in MOVERS}


def some(states: list[str]) -> list[object]:
    """Each state as a parameter; those of :data:`MORE` are marked."""
    return [pytest.param(one, marks=pytest.mark.long if one in MORE else ()) for one in states]


def cut_origin(lab: VmLab, migration: Migration) -> None:
    """The driver goes with the host; who waits here for what it says would wait for ever."""
    lab.power_off("origin")
    migration.process.kill()
    migration.killed()


@pytest.fixture
def bench(lab: VmLab, loaded: Bench) -> Iterator[Bench]:
    """The server runs on origin under load; afterwards both are on."""
    yield loaded.ready()
    for name in MOVERS:
        lab.power_on(name)


# --- the destination's -----------------------------------------------------------------------------------


@pytest.mark.long
def test_destination_before_commit(lab: VmLab, bench: Bench) -> None:
    """It goes on at the origin, and a destination that comes back knows nothing of it."""
    migration = Migration(bench, "RESTORED")
    lab.power_off("destination")
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
    bench.assert_streams()
    lab.power_on("destination")
    assert servers(lab) == {"origin": 1, "destination": 0}
    bench.assert_streams()
    bench.at = "origin"


@pytest.mark.long
def test_destination_that_was_given_the_process(lab: VmLab, bench: Bench) -> None:
    """It ran there, and the origin did not hear of it: in doubt. A host that has booted since is no witness."""
    migration = Migration(bench, "SWITCHED")
    with bench.cut(("input",)):
        migration.go()
        migration.wait_for_journal(bench.destination, "ACTIVATED")
        lab.power_off("destination")
    status, report = migration.end()
    assert (status, report["outcome"]) == (5, "IN_DOUBT"), report
    lab.power_on("destination")
    assert servers(lab) == {"origin": 0, "destination": 0}
    for words in ((), ("--resume", migration.id)):
        status, report = bench.migrate("--recover", *words)
        assert (status, report["outcome"]) == (5, "IN_DOUBT"), report
        assert "was restarted since" in str(report), report
    assert servers(lab) == {"origin": 0, "destination": 0}
    status, report = bench.migrate("--recover", "--resume", migration.id, "--force")
    assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
    assert servers(lab) == {"origin": 1, "destination": 0}
    assert bench.traces(bench.origin) == []


@pytest.mark.long
def test_destination_that_has_said_that_it_runs_there(lab: VmLab, bench: Bench) -> None:
    """It was moved, and is lost with its host: it does not run again at the origin as it was before."""
    migration = Migration(bench, "ACTIVATED")
    lab.power_off("destination")
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (0, "MOVED"), report
    lab.power_on("destination")
    assert servers(lab) == {"origin": 0, "destination": 0}
    assert bench.traces(bench.origin) == []


# --- the link --------------------------------------------------------------------------------------------


def test_link_cut_by_the_hypervisor(lab: VmLab, bench: Bench) -> None:
    """Not a packet between the two, in neither direction, from the restore on: rolled back on both."""
    migration = Migration(bench, "RESTORED")
    lab.link("destination0", False)
    try:
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
        bench.assert_streams()
        eventually(lambda: not bench.traces(bench.destination), "undone on the destination")
    finally:
        lab.link("destination0", True)
    assert servers(lab) == {"origin": 1, "destination": 0}
    bench.assert_streams()
    bench.at = "origin"


# --- the origin's ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", some(BEFORE))
def test_origin_before_commit(lab: VmLab, bench: Bench, state: str) -> None:
    """It is lost with its host, as without a move: what was built on the destination does not come to life.

    The destination finds out by itself, and leaves nothing, so that the origin's boot finds its addresses free.
    """
    migration = Migration(bench, state)
    cut_origin(lab, migration)
    eventually(lambda: not bench.traces(bench.destination), lambda: str(bench.traces(bench.destination)))
    lab.power_on("origin")
    assert_service_on(lab, "origin")
    assert servers(lab) == {"origin": 0, "destination": 0}


@pytest.mark.parametrize("state", some(AFTER))
def test_origin_after_commit(lab: VmLab, bench: Bench, state: str) -> None:
    """It runs on the destination, its peers go on, and the origin's boot starts no second one and takes nothing."""
    migration = Migration(bench, state)
    migration.wait_for_journal(bench.destination, "ACTIVATED")
    cut_origin(lab, migration)
    bench.assert_streams()
    lab.power_on("origin")
    assert_service_on(lab, "destination")
    assert servers(lab) == {"origin": 0, "destination": 1}
    bench.assert_streams()
    status, report = bench.migrate("--recover", host="destination")
    assert (status, f"PID {bench.pid}: runs here" in " ".join(report["notes"])) == (0, True), report
    bench.at = "destination"
