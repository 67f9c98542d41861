"""``--switch none``: the network finds out by itself, and a while later, that the process is on the other host."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from figure_3 import OnBoth, figure_3
from harness.captures import Capture
from harness.migrate import run_migrate
from harness.wait import eventually
from kills import Migration
from kills_outcomes import assert_goes_on_at_origin
from test_switch_by_command import RESETS

from migrate.lab import Lab

NONE = ("--switch", "none")
#: Far more of them than come by each connection in the time in which packets are late to an address that moves.
LATER = 2000


@pytest.fixture(scope="module")
def figure(lab: Lab) -> Iterator[OnBoth]:
    with figure_3(lab):
        bench = OnBoth(lab)
        yield bench
        bench.close()


@pytest.fixture
def bench(figure: OnBoth) -> OnBoth:
    return figure.ready()


def test_a_network_that_takes_its_time(bench: OnBoth) -> None:
    """What still comes to the host that the process has left is sent on, and nobody is reset: there and back."""
    with Capture(bench.peer, "eth0", RESETS) as capture:
        for start, end in (("origin", "destination"), ("destination", "origin")):
            _moved_late(bench, start, end)
            bench.assert_alone(end)
            bench.assert_streams()
    assert capture.packets() == []


def _moved_late(bench: OnBoth, start: str, end: str) -> None:
    """A move from *start* to *end*; the gateway leads there when clients have long been served from there."""
    left, server = bench.lab.hosts[start], ["pgrep", "-f", "numbered.py serve"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_migrate, left, *NONE, bench.pid, end)
        eventually(lambda: not left.exec(server, check=False).stdout, f"it has left {start}")
        before = bench.ask()["least_received"]
        eventually(lambda: bench.ask()["least_received"] > before + LATER, "it is reached all the same", 25)
        assert not running.done()
        bench.route(end)
        ran = running.result()
    assert (ran.status, ran.report["outcome"]) == (0, "MOVED"), ran.said


def test_a_rollback(bench: OnBoth) -> None:
    """The network has done nothing, and need not."""
    with Capture(bench.peer, "eth0", RESETS) as capture:
        migration = Migration(bench, "SWITCHED", *NONE)
        migration.kill("driver")
        migration.killed()
        assert_goes_on_at_origin(bench)
    assert capture.packets() == []


def test_an_address_that_is_not_there_is_refused(bench: OnBoth) -> None:
    bench.destination.exec(["ip", "address", "del", "fd77:1::100/128", "dev", "lo"])
    ran = run_migrate(bench.origin, *NONE, bench.pid, "destination")
    more = ["nodad", "preferred_lft", "0"]
    bench.destination.exec(["ip", "address", "add", "fd77:1::100/128", "dev", "lo", *more])
    assert ran.status == 3 and ran.codes == {("address-missing", "destination")}
    ran.must_say("destination", "fd77:1::100", "ip addr add fd77:1::100/128 dev lo preferred_lft 0")
    assert_goes_on_at_origin(bench)


def test_a_check_says_that_it_could_be(bench: OnBoth) -> None:
    ran = run_migrate(bench.origin, "--check", *NONE, bench.pid, "destination")
    assert ran.status == 0, ran.said
    assert_goes_on_at_origin(bench)
