"""Hosts with a firewall that tracks connections: what it has not seen begin, or not seen all of, goes on.

A moved connection begins nowhere for the destination's, which has seen no SYN; the origin's has an entry still when
the process comes back, or stays.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from harness.captures import Capture
from harness.hosts import MOVERS, connect, patient, spawn, ss
from harness.migrate import Held, move
from harness.tcp_rules import resets
from harness.wait import DEADLINE_S, eventually
from harness.workloads import assert_streams, drive_numbered, serve_numbered
from test_way_back import counters

from migrate.lab import Lab

NUMBERED, REDIS = 7000, 7500
PATIENCE_S = 30
#: Both hosts may be called by ssh, call each other, and be called where the service is.
FIREWALL = """
table inet test_firewall {
    chain in {
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state invalid drop
        ct state established accept
        tcp dport { 22, 7000, 7500 } ct state new accept
        meta l4proto { icmp, icmpv6 } accept
    }
    chain out {
        type filter hook output priority 0; policy drop;
        oif lo accept
        ct state invalid drop
        ct state established accept
        tcp dport 22 ct state new accept
        meta l4proto { icmp, icmpv6 } accept
    }
}
"""
LOOSE = "net.netfilter.nf_conntrack_tcp_loose"

pytestmark = pytest.mark.usefixtures("clean")


@contextlib.contextmanager
def firewalls(lab: Lab, loose: int = 1) -> Iterator[None]:
    """On both hosts. :param loose: whether connections that begin unseen are tracked at all."""
    hosts = [lab.hosts[name] for name in MOVERS]
    for host in hosts:
        host.exec(["nft", FIREWALL])
        host.exec(["sysctl", "-qw", f"{LOOSE}={loose}"])
    try:
        yield
    finally:
        for host in hosts:
            host.exec(["nft", "delete", "table", "inet", "test_firewall"])
            host.exec(["sysctl", "-qw", f"{LOOSE}=1"])


def redis(lab: Lab, address: str) -> int:
    words = ["redis-server", "--port", str(REDIS), "--bind", address, "--save", "", "--protected-mode", "no"]
    pid = spawn(lab.hosts["origin"], words)
    eventually(lambda: ss(lab.hosts["origin"], "-l", f"sport = {REDIS}"), "the server listens")
    return pid


def answered(peers: list[socket.socket]) -> bool:
    for peer in peers:
        peer.sendall(b"PING\r\n")
    return all(peer.recv(100) == b"+PONG\r\n" for peer in peers)


@pytest.mark.parametrize("loose", (1, 0))
def test_there_and_back_under_traffic(lab: Lab, loose: int) -> None:
    with firewalls(lab, loose):
        pid = serve_numbered(lab.hosts["origin"], NUMBERED)
        with Capture(lab.hosts["peer"], "eth0", f"tcp port {NUMBERED}") as capture:
            client = drive_numbered(lab, NUMBERED, 5)
            for start in MOVERS:
                before = client.ask()
                move(lab, pid, start=start)
                print("silence in ms:", assert_streams(client, before)["longest_silence_ms"])
        assert client.stop()["errors"] == []
    assert resets(capture.packets()) == []


@pytest.mark.parametrize(("version", "loose"), (("ipv4", 1), ("ipv6", 0)))
def test_the_peer_is_the_next_to_speak(lab: Lab, version: str, loose: int) -> None:
    """And need not say it twice."""
    address = getattr(lab.service, version)
    with firewalls(lab, loose):
        pid = redis(lab, address)
        peers = [connect(lab.hosts["peer"], address, REDIS) for _ in range(5)]
        assert answered(peers)
        for start in MOVERS:
            move(lab, pid, start=start)
            before = counters(lab)
            assert answered(peers)
            assert counters(lab) == before
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("version", ("ipv4", "ipv6"))
def test_a_process_that_stays(lab: Lab, version: str) -> None:
    """What was sent meanwhile, and given to the connections past the firewall, it takes for seen."""
    address = getattr(lab.service, version)
    with firewalls(lab), patient(lab, address, PATIENCE_S):
        pid = redis(lab, address)
        peers = [connect(lab.hosts["peer"], address, REDIS) for _ in range(5)]
        assert answered(peers)
        held = Held(lab.hosts["origin"], "SWITCHED", "--max-gap", 60, pid, "destination")
        for peer in peers:
            peer.sendall(b"PING\r\n")
        before = counters(lab)
        held.signal("INT")
        for peer in peers:
            peer.settimeout(DEADLINE_S)
            assert peer.recv(100) == b"+PONG\r\n"
        assert held.end().report["outcome"] == "ROLLED_BACK"
        assert answered(peers)
        assert counters(lab) == before
        for peer in peers:
            peer.close()
