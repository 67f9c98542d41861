"""Where the process is when something goes wrong is found out, not guessed: from the host that knows it.

A stranger on the destination, an agent that stands still, a link that is lost in the worst moment.
"""

from __future__ import annotations

import time

import pytest
from harness.left import View
from harness.wait import eventually
from kills import Bench, Migration
from kills_outcomes import assert_goes_on_at_origin, assert_moved
from test_kills import stop_in_activation


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


# --- somebody else's process -----------------------------------------------------------------------------


def test_a_stranger_with_a_number_of_the_tree_survives_the_rollback(bench: Bench) -> None:
    """It got the number after the check, and is younger than anything of this migration."""
    migration = Migration(bench, "DUMPED")
    stranger = bench.spawn_as(bench.destination, bench.pid, ["sleep", "4242"])
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert "sleep 4242" in View(bench.destination).processes[stranger][1]
    bench.destination.exec(["kill", "-9", str(stranger)])
    assert_goes_on_at_origin(bench)


def test_a_service_address_that_somebody_added_there_survives_the_rollback(bench: Bench) -> None:
    """The destination got it after the check: it is not this migration's to remove."""
    migration = Migration(bench, "DUMPED")
    mine = [f"{bench.lab.service.ipv4}/24", "dev", "eth0"]
    bench.destination.exec(["ip", "address", "add", *mine])
    try:
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (4, "ROLLED_BACK")
        assert (
            f"{bench.lab.service.ipv4} was added to this host since the check" in report["error"]["message"]
        )
        assert f"eth0 {mine[0]}" in View(bench.destination).addresses
    finally:
        bench.destination.exec(["ip", "address", "del", *mine], check=False)
    for host in ("gateway", "peer"):
        bench.lab.hosts[host].exec(["ip", "neigh", "flush", "all"])
    assert_goes_on_at_origin(bench)


def test_an_address_that_somebody_adds_while_the_tree_is_built_is_noticed(bench: Bench) -> None:
    """On another interface: after a rollback this host would answer what still comes to it with resets."""
    migration = Migration(bench, "RESTORED")
    others = [f"{bench.lab.service.ipv4}/32", "dev", "lo"]
    bench.destination.exec(["ip", "address", "add", *others])
    try:
        migration.go()
        status, report = migration.end()
    finally:
        bench.destination.exec(["ip", "address", "del", *others])
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert f"{bench.lab.service.ipv4} was added to this host" in report["error"]["message"]
    assert_goes_on_at_origin(bench)


# --- who is in doubt asks --------------------------------------------------------------------------------


def stopped_agent_and_lost_link(bench: Bench) -> Migration:
    """The tree is built on the destination and does not run; the driver has given the process away."""
    migration = Migration(bench, "SWITCHED")
    migration.kill("agent", signal="STOP")
    with bench.cut():
        migration.go()
        status, report = migration.end()
    assert (status, report["outcome"]) == (5, "IN_DOUBT")
    return migration


def test_nobody_decides_while_the_destination_has_not_settled(bench: Bench) -> None:
    """A process that is built there looks like one that runs. Its agent may still undo it, or, since TCP
    delivers it after all, take the COMMIT.
    """
    migration = stopped_agent_and_lost_link(bench)
    notes = bench.migrate("--recover", host="destination")[1]["notes"]
    assert any(f"PID {bench.pid}: built, not running yet" in note for note in notes), notes
    for word in ("--release", "--resume"):
        status, report = bench.migrate("--recover", word, migration.id, "--force")
        assert (status, report["outcome"]) == (5, "IN_DOUBT")
        assert "under way" in report["error"]["message"]
    bench.destination.exec(["kill", "-CONT", str(migration.agent)])
    status, report = bench.migrate("--recover")
    assert status == 0
    if report["notes"][0] == "destination was asked: it does not run there":
        assert_goes_on_at_origin(bench)
    else:
        assert report["notes"][0] == f"destination was asked: it runs there as PID {bench.pid}"
        assert_moved(bench)


def kill_sshd(bench: Bench) -> None:
    """The process that serves the driver's connection, not the one that accepts new ones."""
    bench.destination.exec(["pkill", "-9", "-f", "sshd(-session)?: root"])


def test_driver_asks_when_the_answer_to_commit_is_lost(bench: Bench) -> None:
    migration = stop_in_activation(bench)
    kill_sshd(bench)
    migration.kill("criu destination", signal="CONT")
    status, report = migration.end()
    assert (status, report["outcome"]) == (0, "MOVED")
    assert f"destination was asked: it runs there as PID {bench.pid}" in report["notes"]
    assert_moved(bench)


def test_a_signal_that_nobody_gets_is_told_in_doubt(bench: Bench) -> None:
    """To whom the destination has not answered yet; whoever has sent it must know where it went."""
    migration = stop_in_activation(bench)
    bench.origin.exec(["kill", "-TERM", str(bench.pid)])
    kill_sshd(bench)
    migration.kill("criu destination", signal="CONT")
    status, report = migration.end()
    assert (status, report["outcome"]) == (0, "MOVED")
    told = [one for one in report["notes"] if f"process {bench.pid} was sent SIGTERM here" in one]
    assert len(told) == 1 and "send it there" in told[0], report["notes"]
    assert_moved(bench)


def test_process_that_has_ended_there_does_not_run_again_here(bench: Bench) -> None:
    """It ran: what it did must not be done again by the copy."""
    with bench.other(bench.origin.spawn(["sleep", "1000"])):
        migration = Migration(bench, "SWITCHED")
        with bench.cut(("input",)):
            migration.go()
            assert migration.end()[0] == 5
        bench.destination.exec(["kill", "-9", str(bench.pid)])
        status, report = bench.migrate("--recover")
        assert status == 0
        assert report["notes"][0] == f"destination was asked: it ran there as PID {bench.pid}, and has ended"
        assert bench.pid not in View(bench.origin).processes
    bench.assert_alone("origin")


def test_process_that_has_ended_since_it_was_said_to_run(bench: Bench) -> None:
    """Who asks whether the destination has cleaned up hears of it, and says so."""
    with bench.other(bench.origin.spawn(["sleep", "1000"])):
        migration = Migration(bench, "ACTIVATED")
        bench.destination.exec(["kill", "-9", str(bench.pid)])
        kill_sshd(bench)
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (6, "ENDED")
        assert report["where"] == "was moved to destination and has ended there"
    bench.assert_alone("origin")


# --- an address that its host no longer answers for well -------------------------------------------------


def test_a_destination_that_stands_still_loses_the_address(bench: Bench) -> None:
    """Before COMMIT it has it for some seconds only; the origin's copy goes on, and is the only one to answer."""
    migration = Migration(bench, "SWITCHED")
    lease = bench.destination.exec(["ip", "-o", "address", "show", "dev", "eth0"]).stdout
    assert all("forever" not in line.split("valid_lft")[1].split()[0] for line in _of(bench, lease)), lease
    migration.kill("agent", signal="STOP")
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert "destination has not confirmed" in " ".join(report["notes"])
    eventually(lambda: not bench.service & View(bench.destination).addresses, "the lease has ended", 10)
    for ip in bench.lab.service:
        bench.lab.hosts["gateway"].exec(["ip", "neigh", "flush", "to", ip])
    bench.assert_streams()
    bench.destination.exec(["kill", "-CONT", str(migration.agent)])
    assert_goes_on_at_origin(bench, within_s=10)


def test_the_address_is_there_for_good_after_the_move(bench: Bench) -> None:
    migration = Migration(bench, "SWITCHED")
    time.sleep(7)  # longer than a lease: it was renewed
    assert bench.service <= View(bench.destination).addresses
    migration.go()
    assert migration.end()[0] == 0
    shown = bench.destination.exec(["ip", "-o", "address", "show", "dev", "eth0"]).stdout
    lines = _of(bench, shown)
    assert len(lines) == 2 and all("valid_lft forever" in line for line in lines), shown
    assert not any("noprefixroute" in line for line in lines), shown
    assert_moved(bench)


def _of(bench: Bench, shown: str) -> list[str]:
    """The lines of the service addresses."""
    return [line for line in shown.splitlines() if any(f" {ip}/" in line for ip in bench.lab.service)]
