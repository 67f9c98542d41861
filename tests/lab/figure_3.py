"""The lab as figure 3 of the paper has it: both hosts have the service's addresses, the gateway a route to one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from harness.left import View
from harness.wait import eventually
from kills import Bench, Migration
from kills_outcomes import assert_goes_on_at_origin

from migrate.lab import Host, Lab
from migrate.lab.topology import NETWORKS

#: So that none of them answers for an address that is on lo, and none says that it has it when it asks for others.
SILENT = {"net/ipv4/conf/all/arp_ignore": "1", "net/ipv4/conf/all/arp_announce": "2"}
MOVERS = ("origin", "destination")


def bits(address: str) -> int:
    return 128 if ":" in address else 32


def own(host: Host, like: str) -> str:
    """That host's own address of the family of *like*."""
    return host.ipv6 if ":" in like else host.ipv4


class OnBoth(Bench):
    """A server under load whose addresses are on both hosts; the gateway leads to the origin."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.gateway = lab.hosts["gateway"]
        self.service = set()
        self.before = {host.name: View(host) for host in (self.origin, self.destination)}
        self.route("origin")

    def put_back(self) -> None:
        """The gateway leads to the origin again."""
        self.route("origin")

    def route(self, to: str) -> None:
        """``route add ipX gw ipB``"""
        for address in self.lab.service:
            words = f"ip route replace {address}/{bits(address)} via {own(self.lab.hosts[to], address)}"
            self.gateway.exec(words.split())

    def leads_to(self) -> set[str]:
        """The hosts to which the gateway's kernel sends what is for the service."""
        found = set()
        for address in self.lab.service:
            words = ["ip", "-json", "route", "get", address]
            via = json.loads(self.gateway.exec(words).stdout)[0].get("gateway", "nowhere")
            found |= {name for name in MOVERS if via == own(self.lab.hosts[name], address)} or {via}
        return found


@contextlib.contextmanager
def figure_3(lab: Lab) -> Iterator[None]:
    """The addresses are on lo of both, which is silent, as long as the block lasts."""
    before = {}
    for name in MOVERS:
        host = lab.hosts[name]
        before[name] = {key: host.exec(["cat", f"/proc/sys/{key}"]).stdout.strip() for key in SILENT}
        _write(host, SILENT)
        for address in lab.service:
            if name == "origin":
                length = 64 if ":" in address else 24
                host.exec(f"ip address del {address}/{length} dev eth0".split())
            more = " nodad preferred_lft 0" if ":" in address else ""
            host.exec(f"ip address add {address}/{bits(address)} dev lo{more}".split())
    for name in ("gateway", "peer"):
        lab.hosts[name].exec(["ip", "neigh", "flush", "all"])
    try:
        yield
    finally:
        for name in MOVERS:
            host = lab.hosts[name]
            for address in lab.service:
                host.exec(f"ip address del {address}/{bits(address)} dev lo".split())
            _write(host, before[name])
        for address in lab.service:
            lab.hosts["gateway"].exec(f"ip route del {address}/{bits(address)}".split())
            more = " nodad preferred_lft 0" if ":" in address else ""
            length = 64 if ":" in address else 24
            lab.hosts["origin"].exec(f"ip address add {address}/{length} dev eth0{more}".split())


def _write(host: Host, keys: dict[str, str]) -> None:
    for key, value in keys.items():
        host.exec(["sh", "-c", f"echo {value} > /proc/sys/{key}"])


@contextlib.contextmanager
def by_the_segment(lab: Lab) -> Iterator[None]:
    """The peer is on the segment of the servers, by its second leg; the gateway leads it to the service."""
    peer = lab.hosts["peer"]
    for address, gateway in zip(lab.service, NETWORKS["servers"].gateway, strict=True):
        source = "10.77.1.3" if "." in address else "fd77:1::3"
        for table in ("main", "101"):  # that of what comes from its second leg
            words = f"{address}/{bits(address)} via {gateway} dev eth1 src {source} onlink table {table}"
            peer.exec(["ip", "route", "add", *words.split()])
    try:
        yield
    finally:
        for address in lab.service:
            for table in ("main", "101"):
                peer.exec(f"ip route del {address}/{bits(address)} table {table}".split())


def kill_when_it_is_switched(bench: OnBoth, options: tuple[str, ...], victims: tuple[str, ...]) -> None:
    """Kill them; the guardians have the network lead to the origin again, where the process goes on."""
    migration = Migration(bench, "SWITCHED", *options)
    assert bench.leads_to() == {"destination"}
    migration.kill(*victims)
    if "driver" in victims:
        migration.killed()
    else:
        assert migration.end()[0] == 4
    eventually(lambda: bench.leads_to() == {"origin"}, "the gateway leads to the origin", 15)
    assert_goes_on_at_origin(bench, within_s=15)
