"""``--switch route:gateway``: figure 3 of the paper. The gateway's key is bound to a command of narrow rights.

The judges are the gateway's ``ip route get``, the clients' end of the streams, and a capture of the peer.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from figure_3 import OnBoth, by_the_segment, figure_3, kill_when_it_is_switched
from harness.captures import Capture
from harness.checkered import checkered
from harness.migrate import run_migrate
from harness.wait import eventually
from kills import Migration
from kills_outcomes import assert_goes_on_at_origin
from test_switch_by_command import RESETS

from migrate.lab import Lab

ROUTE = ("--switch", "route:gateway")
KEYS = "/root/.ssh/authorized_keys"
AGENT = Path(sys.executable).parent / "migrate-agent"
HOPS = ("10.77.1.1", "10.77.1.2", "fd77:1::1", "fd77:1::2")


@pytest.fixture(scope="module")
def figure(lab: Lab) -> Iterator[OnBoth]:
    with figure_3(lab), bound(lab, HOPS):
        bench = OnBoth(lab)
        yield bench
        bench.close()


@pytest.fixture
def bench(figure: OnBoth) -> OnBoth:
    return figure.ready()


@contextlib.contextmanager
def bound(lab: Lab, hops: tuple[str, ...]) -> Iterator[None]:
    """With the hosts' keys the gateway does nothing but this."""
    gateway = lab.hosts["gateway"]
    before = gateway.exec(["cat", KEYS]).stdout
    words = " ".join([str(AGENT), "--gateway", *(f"--to {hop}" for hop in hops), *lab.service])
    _keys(lab, f'restrict,command="{words}" {before[before.index("ssh-") :]}')
    try:
        yield
    finally:
        _keys(lab, before)


def _keys(lab: Lab, text: str) -> None:
    lab.hosts["gateway"].exec(["sh", "-c", f"cat >{KEYS}"], input=text)


@contextlib.contextmanager
def no_reset(bench: OnBoth, device: str = "eth0") -> Iterator[None]:
    """The peer gets, and sends, none meanwhile, says tcpdump; and all of the gateway's routes are as before."""
    shown = "ip -d route show table all; ip -6 -d route show table all"
    before = bench.gateway.exec(["sh", "-c", shown]).stdout
    with Capture(bench.peer, device, RESETS) as capture:
        yield
    assert capture.packets() == []
    assert bench.gateway.exec(["sh", "-c", shown]).stdout == before


@pytest.mark.parametrize("where", ["behind the gateway", "on the segment"])
def test_there_and_back(bench: OnBoth, where: str) -> None:
    """IPv4 and IPv6: no reset, no lost number."""
    if where == "behind the gateway":
        _there_and_back(bench, "eth0")
        return
    with by_the_segment(bench.lab):
        bench.stop()
        bench.start()
        _there_and_back(bench, "eth1")
        bench.stop()


def _there_and_back(bench: OnBoth, device: str) -> None:
    with no_reset(bench, device):
        status, report = bench.migrate(*ROUTE, str(bench.pid), "destination")
        assert (status, report["outcome"]) == (0, "MOVED"), report
        assert bench.leads_to() == {"destination"}
        bench.assert_alone("destination")
        bench.assert_streams()
        status, report = bench.migrate(*ROUTE, str(bench.pid), "origin", host="destination")
        assert (status, report["outcome"]) == (0, "MOVED"), report
        assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("victims", checkered([("driver",), ("agent",), ("driver", "agent")]), ids="-".join)
def test_a_kill_when_it_is_switched(bench: OnBoth, victims: tuple[str, ...]) -> None:
    """The guardians have the gateway lead to the origin again."""
    with no_reset(bench):
        kill_when_it_is_switched(bench, ROUTE, victims)


def test_all_are_killed_and_recover_gives_it_back(bench: OnBoth) -> None:
    """The driver and both guardians: nobody is left but --recover, on both hosts."""
    migration = Migration(bench, "SWITCHED", *ROUTE)
    migration.kill("guardian origin", "guardian destination", "driver", "agent")
    migration.killed()
    assert bench.leads_to() == {"destination"}
    for name in ("destination", "origin"):
        eventually(lambda name=name: recovered(bench, name), f"{name}: nothing is under way or left")
    assert bench.leads_to() == {"origin"}
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("state", ["RESTORED", "SWITCHED"])
def test_a_route_that_somebody_else_changes(bench: OnBoth, state: str) -> None:
    """Before the destination has it, or after: rolled back; the address that is still ours leads to the origin."""
    migration = Migration(bench, state, *ROUTE)
    bench.gateway.exec(["ip", "route", "replace", "10.77.1.100/32", "via", "10.77.1.3"])
    if state == "SWITCHED":
        migration.kill("agent")
    else:
        migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
    assert any("10.77.1.3" in note for note in report["notes"]), report
    assert bench.leads_to() == {"origin", "10.77.1.3"}
    bench.route("origin")
    assert bench.migrate("--recover")[0] == 0
    assert_goes_on_at_origin(bench)


def test_a_gateway_that_is_lost_in_the_freeze(bench: OnBoth) -> None:
    """Rolled back. What could not be looked at is told, and --recover does it when the gateway is there again."""
    migration = Migration(bench, "RESTORED", *ROUTE)
    cut = "table inet cut { chain c { type filter hook input priority 0; tcp dport 22 drop; }; }"
    bench.gateway.exec(["nft", cut])
    try:
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
        assert "the gateway gateway cannot be asked" in report["error"]["message"]
        assert any("migrate --recover" in note for note in report["notes"])
        bench.assert_streams()
    finally:
        bench.gateway.exec(["nft", "delete", "table", "inet", "cut"])
    for name in ("destination", "origin"):
        eventually(lambda name=name: recovered(bench, name), f"{name}: nothing is under way or left")
    assert bench.leads_to() == {"origin"}
    assert_goes_on_at_origin(bench)


def recovered(bench: OnBoth, name: str) -> bool:
    """Run ``--recover``; whether nothing is left. An agent that still waits for the gateway is let be."""
    status, report = bench.migrate("--recover", host=name)
    assert status == 0, report
    journals = ["sh", "-c", "ls -d /run/migrate/[0-9a-f]*"]
    return bench.lab.hosts[name].exec(journals, check=False).stdout == ""


def test_refusals_with_a_remedy(bench: OnBoth) -> None:
    """Nothing is touched."""
    with bound(bench.lab, HOPS[:1] + HOPS[2:3]):
        ran = run_migrate(bench.origin, *ROUTE, bench.pid, "destination")
        assert ran.status == 3
        ran.must_say("destination", "may lead 10.77.1.100 to no address of this host")
    ran = run_migrate(bench.origin, "--switch", "route:nowhere", bench.pid, "destination")
    assert ran.status == 3 and ran.codes == {("switch-impossible", "origin")}
    ran.must_say("origin", "the gateway nowhere cannot be asked")
    bench.origin.exec(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0"])
    ran = run_migrate(bench.origin, *ROUTE, bench.pid, "destination")
    bench.origin.exec(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1"])
    assert ran.status == 3
    ran.must_say("origin", "eth0 answers ARP requests", "net.ipv4.conf.all.arp_ignore=1")
    assert_goes_on_at_origin(bench)


def test_with_the_key_nothing_else_can_be_done(bench: OnBoth) -> None:
    words = ["ssh", "-oBatchMode=yes", "gateway", "ip", "route", "flush", "table", "main"]
    done = bench.origin.exec(words, input="", check=False)
    assert list(json.loads(done.stdout)) == ["addresses", "hops", "now"]
    assert bench.leads_to() == {"origin"}
