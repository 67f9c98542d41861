"""A rollback leaves the origin's network as it was, whoever undoes: addresses and routes, judged by ``ip`` alone.

The service addresses are of networks beside those of the lab, on two interfaces in the same network, and set up as
programs do that lease addresses, or make routes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.hosts import spawn, ss
from harness.migrate import Held, run_migrate
from harness.network import Network
from harness.wait import eventually

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7600
HERE = """
ip link add vip0 link eth0 type macvlan mode bridge; ip link set vip0 up
ip addr add 172.20.0.5/24 dev eth0
ip addr add 172.20.0.100/24 metric 500 brd + dev vip0 label vip0:a valid_lft 5000 preferred_lft 4000
ip addr add 172.21.0.100/24 dev eth0 noprefixroute
ip route add 172.21.0.0/24 dev eth0 proto kernel scope link src 172.21.0.100 metric 100
ip route add 172.21.0.0/24 dev eth0 table 77 proto kernel scope link src 172.21.0.100 mtu 1400
ip addr add 172.22.0.100/32 dev eth0 scope link noprefixroute
ip addr add fd99::5/64 dev eth0 nodad
ip addr add fd99::100/64 dev vip0 metric 77 nodad
ip addr add fd9a::100/64 dev eth0 noprefixroute nodad valid_lft 5000 preferred_lft 0
ip -6 route add fd9a::/64 dev eth0 proto kernel metric 100
"""
THERE = """
ip addr add 172.20.0.9/24 dev eth0; ip addr add 172.21.0.9/24 dev eth0; ip addr add 172.22.0.9/24 dev eth0
ip addr add fd99::9/64 dev eth0 nodad; ip addr add fd9a::9/64 dev eth0 nodad
"""
NETWORKS = ("172.20.0.0/24", "172.21.0.0/24", "172.22.0.0/24", "fd99::/64", "fd9a::/64")
MOVED = ("172.20.0.100", "172.21.0.100", "172.22.0.100", "fd99::100", "fd9a::100")


def sh(host: Host, script: str, check: bool = True) -> str:
    return host.exec(["sh", "-ec" if check else "-c", script], check=check).stdout


@pytest.fixture
def server(lab: Lab) -> Iterator[int]:
    """A server on all addresses; its PID."""
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    sh(origin, HERE)
    sh(destination, THERE)
    words = ["redis-server", "--port", str(PORT), "--bind", *MOVED, "--save", "", "--protected-mode", "no"]
    pid = spawn(origin, words)
    eventually(lambda: len(ss(origin, "-l", f"sport = {PORT}")) == len(MOVED), "the server listens")
    yield pid
    origin.exec(["kill", "-9", str(pid)], check=False)
    sh(origin, "ip link del vip0; ip route flush table 77", check=False)
    for host in (origin, destination):
        for network in NETWORKS:
            version = 6 if ":" in network else 4
            sh(
                host,
                f"ip -{version} addr flush to {network}; ip -{version} route flush {network}",
                check=False,
            )


def network(host: Host) -> Network:
    return Network(lambda words: host.exec(["ip", *words.split()]).stdout)


def guardian(host: Host) -> int:
    return int(host.exec(["pgrep", "-f", "migrate.recovery.guardian"]).stdout)


def wait_settled(host: Host, migration: str) -> None:
    def gone() -> bool:
        return not host.exec(["ls", f"/run/migrate/{migration}/journal"], check=False).stdout

    eventually(gone, "the guardian has settled it")


def held(lab: Lab, pid: int) -> tuple[Held, Network]:
    """A migration at SWITCHED, and the origin's network before it."""
    origin = lab.hosts["origin"]
    before = network(origin)
    stopped = Held(origin, "SWITCHED", "--max-gap", 60, pid, "destination")
    changes = "\n".join(network(origin).changes(before))
    assert all(f"gone: inet {ip}" in changes or f"gone: inet6 {ip}" in changes for ip in MOVED), changes
    return stopped, before


def test_the_driver_rolls_back(lab: Lab, server: int) -> None:
    stopped, before = held(lab, server)
    stopped.signal("TERM")
    report = stopped.end().report
    assert report["outcome"] == "ROLLED_BACK"
    assert network(lab.hosts["origin"]).changes(before) == []
    assert not any("not as it was" in note or "a route by" in note for note in report["notes"]), report[
        "notes"
    ]
    assert not any("has a lifetime here" in note for note in report["notes"]), "that is of who moves"
    lent = run_migrate(lab.hosts["origin"], "--check", str(server), "destination").report["notes"]
    assert sum("has a lifetime here" in note for note in lent) == 2


def test_the_guardian_rolls_back(lab: Lab, server: int) -> None:
    stopped, before = held(lab, server)
    stopped.signal("KILL")
    stopped.killed()
    eventually(lambda: not network(lab.hosts["origin"]).changes(before), "all is as it was")
    wait_settled(lab.hosts["origin"], stopped.id)


def test_recover_rolls_back(lab: Lab, server: int) -> None:
    stopped, before = held(lab, server)
    origin = lab.hosts["origin"]
    origin.exec(["kill", "-KILL", str(stopped.driver), str(guardian(origin))])
    stopped.killed()
    said = origin.exec(["migrate", "--recover"]).stdout
    assert network(origin).changes(before) == []
    assert "not as it was" not in said


def test_what_is_not_as_it_was_is_told(lab: Lab, server: int) -> None:
    """Somebody has given one of the addresses to the origin meanwhile, in his own way."""
    stopped, _ = held(lab, server)
    origin = lab.hosts["origin"]
    sh(origin, "ip addr add 172.21.0.100/24 dev eth0")
    stopped.signal("TERM")
    notes = stopped.end().report["notes"]
    assert any("172.21.0.100 of eth0 is not as it was: flags was noprefixroute" in note for note in notes), (
        notes
    )
    assert any("a route by eth0 has come: 172.21.0.0/24 proto kernel" in note for note in notes), notes
