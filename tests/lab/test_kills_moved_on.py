"""kill -9 of everything while a server that an earlier move has given a PID namespace is moved on: as of any other.

It runs on the origin in that namespace, and would have its own PID, in none, on the destination.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.left import View, processes
from harness.migrate import move, run_migrate
from kills import Bench, Migration
from kills_outcomes import assert_decided_in_doubt, assert_goes_on_at_origin, assert_moved, killed_in

from migrate.lab import Host, Lab


class Within(Bench):
    """A bench whose server got a namespace when it came back to origin, where its PID was taken.

    :ivar home: its own PID. :ivar init: who keeps the namespace.
    """

    home = init = 0

    def start(self) -> None:
        super().start()
        self.home = self.pid
        assert move(self.lab, self.home).report["destination_pid"] == self.home
        other = self.spawn_as(self.origin, self.home, ["sleep", "1000"])
        self.pid = move(self.lab, self.home, start="destination").report["destination_pid"]
        self.origin.exec(["kill", "-9", str(other)])
        assert self.pid != self.home
        parent = self.origin.exec(["ps", "-o", "ppid=", "-p", str(self.pid)]).stdout
        self.init = int(parent)
        assert "pid_namespace.py" in processes(self.origin)[self.init]

    def number_on(self, host: Host) -> int:
        return self.pid if host is self.origin else self.home

    def wrong(self, where: str, *, doubt: str = "") -> list[str]:
        """It needs its init as long as it is on origin, in doubt too, and has none else."""
        here = where == "origin" or bool(doubt)
        kept = f"{self.origin.name}: process {self.init} "
        found = super().wrong(where, doubt=doubt)
        assert not here or self.init in View(self.origin).processes
        return [one for one in found if not (here and one.startswith(kept))]


@pytest.fixture(scope="module")
def within(lab: Lab) -> Iterator[Within]:
    made = Within(lab)
    yield made
    made.close()


@pytest.fixture
def bench(within: Within) -> Bench:
    return within.ready()


@pytest.mark.parametrize("state", ["CHECKED", "FROZEN", "ISOLATED", "SWITCHED"])
def test_driver_killed_before_commit(bench: Bench, state: str) -> None:
    killed_in(bench, state, "driver")
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("state", ["CHECKED", "FROZEN"])
def test_criu_killed_before_the_dump(bench: Bench, state: str) -> None:
    migration = Migration(bench, state)
    migration.kill("criu origin")
    status, report = migration.end()
    assert (status, report["error"]["kind"]) == (4, "CriuError")
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("victim", ["agent", "criu destination"])
def test_destination_killed(bench: Bench, victim: str) -> None:
    """The driver rolls back, and says where it runs by the number that it has there."""
    migration = Migration(bench, "RESTORED")
    migration.kill(victim)
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert report["where"] == f"runs on origin as PID {bench.pid}"
    assert_goes_on_at_origin(bench)


def test_the_restore_fails(bench: Bench) -> None:
    """Its own PID was free there when it was checked, and is taken when it is built."""
    migration = Migration(bench, "STREAMED")
    home = bench.number_on(bench.destination)
    other = bench.spawn_as(bench.destination, home, ["sleep", "2000"])
    migration.go()
    status, report = migration.end()
    bench.destination.exec(["kill", "-9", str(other)])
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert f"PID {home}" in report["error"]["message"]
    assert_goes_on_at_origin(bench)


def test_driver_and_guardian_killed(bench: Bench) -> None:
    killed_in(bench, "SWITCHED", "guardian origin", "driver", "criu origin")
    status, report = bench.migrate("--recover")
    assert (status, report["outcome"]) == (0, "UNTOUCHED")
    assert f"process {bench.pid} goes on here" in " ".join(report["notes"])
    assert_goes_on_at_origin(bench)


def test_criu_killed_after_the_dump(bench: Bench) -> None:
    migration = Migration(bench, "STREAMED")
    migration.kill("criu origin")
    assert migration.end()[0] == 0
    assert_moved(bench)


def test_driver_killed_after_commit(bench: Bench) -> None:
    """In doubt the tree stays frozen in its namespace, until somebody decides."""
    assert_decided_in_doubt(bench, killed_in(bench, "COMMITTED", "driver"))


def test_driver_killed_when_it_runs_there(bench: Bench) -> None:
    killed_in(bench, "ACTIVATED", "driver")
    assert_moved(bench)


def test_check_says_who_has_joined_the_namespace(bench: Bench) -> None:
    """He would end with the tree, although he is not of it; and nothing is in the way of the tree itself."""
    assert bench.migrate("--check", str(bench.pid), "destination")[0] == 0
    helper = bench.origin.spawn(["nsenter", "-t", str(bench.pid), "-p", "-m", "sleep", "3000"])
    inside = bench.origin.exec(["pgrep", "-fx", "sleep 3000"]).stdout.split()
    checked = run_migrate(bench.origin, "--check", bench.pid, "destination")
    bench.origin.exec(["kill", "-9", *inside])
    assert (checked.status, checked.codes) == (3, {("namespace-beside", "origin")})
    checked.must_say("origin", f"sleep (PID {inside[0]})", "would end when")
    assert helper
    bench.assert_alone("origin")
