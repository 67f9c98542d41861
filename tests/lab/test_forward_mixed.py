"""A proxy on a service address that has connected to its server from the host's own address: both ends move.

The judges are redis, which knows each connection of the proxy by its ends; the pool of the peer behind the proxy,
which ends at the first wrong answer; a capture on each of the peer's interfaces, ``nft`` and ``ip``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from figure_3 import bits, figure_3, own
from forwarding import OWN, Proxy
from harness import left
from harness.captures import Capture
from harness.hosts import listeners, spawn
from harness.migrate import Held, run_migrate
from harness.reset import give_back, reset
from harness.wait import eventually

from migrate.lab import Lab


@pytest.fixture
def proxy(lab: Lab) -> Iterator[Proxy]:
    reset(lab)
    made = Proxy(lab, OWN["neighbour"])
    yield made
    made.end_forwards()
    reset(lab)


@pytest.mark.parametrize("words", [("auto",), ("forward+address",)], ids=" ".join)
def test_both_go_on(proxy: Proxy, words: tuple[str, ...]) -> None:
    """Clients find it at its address, which has moved; its server has the connections that it had."""
    with Capture(proxy.peer, "eth0", "tcp port 6379", name="clients") as clients:
        ran = proxy.move("--switch", *words)
    assert proxy.resets(clients) == []
    assert (ran.report["switch"], ran.report["addresses"]) == ("forward+address", [proxy.service])
    notes = "".join(ran.report["notes"])
    assert "it has to stay up" in notes
    assert ("--switch auto: forward+address, since" in notes) == (words == ("auto",))
    assert proxy.where() == "destination" and OWN["origin"] not in left.addresses(proxy.destination)
    assert f"10 connections of this host are forwarded to {OWN['destination']}" in proxy.forwards("origin")
    new = proxy.peer.exec(["redis-cli", "-h", proxy.service, "ping"]).stdout
    assert new.strip() == "PONG"
    proxy.assert_goes_on()
    proxy.end_forwards()
    give_back(proxy.lab)
    proxy.assert_as_before()


@pytest.mark.parametrize(
    "victims", [["driver"], ["agent"], ["driver", "agent"], ["driver", "guardian origin"]], ids=" and ".join
)
def test_killed_when_switched(proxy: Proxy, victims: list[str]) -> None:
    """Whoever undoes it, both go on at the origin, and nothing of either way is left."""
    with (
        Capture(proxy.peer, "eth0", "tcp port 6379", name="clients") as clients,
        Capture(proxy.peer, proxy.interface, "tcp port 6379") as servers,
    ):
        proxy.strike(victims)
        proxy.assert_stayed()
    assert proxy.where() == "origin"
    assert proxy.resets(clients) == proxy.resets(servers) == []


def test_a_forward_that_fails(proxy: Proxy) -> None:
    """The address, which would have gone after it, has not gone."""
    held = Held(proxy.origin, "RESTORED", *proxy.words, "--max-gap", "60", proxy.pid, "destination")
    proxy.origin.exec(["ip", "route", "add", "blackhole", proxy.address])
    held.go()
    ran = held.end()
    proxy.origin.exec(["ip", "route", "del", "blackhole", proxy.address])
    assert (ran.status, ran.report["outcome"]) == (4, "ROLLED_BACK"), ran.said
    proxy.assert_stayed()
    assert proxy.where() == "origin"


def test_an_address_that_fails(proxy: Proxy) -> None:
    """Somebody gives it to another interface of the destination: what is forwarded by then is so no more."""
    held = Held(proxy.origin, "RESTORED", *proxy.words, "--max-gap", "60", proxy.pid, "destination")
    proxy.destination.exec(["ip", "address", "add", f"{proxy.service}/32", "dev", "lo"])
    held.go()
    ran = held.end()
    proxy.destination.exec(["ip", "address", "del", f"{proxy.service}/32", "dev", "lo"], check=False)
    assert (ran.status, ran.report["outcome"]) == (4, "ROLLED_BACK"), ran.said
    proxy.assert_stayed()
    assert proxy.where() == "origin"


def test_what_is_said_before(proxy: Proxy) -> None:
    """By --check: what auto would do; and without it what would help."""
    checked = run_migrate(proxy.origin, "--check", *proxy.words, proxy.pid, "destination")
    assert checked.status == 0, checked.said
    assert checked.report["switch"] == "forward+address"
    assert "has to stay up" in "".join(checked.said)
    plain = run_migrate(proxy.origin, "--check", proxy.pid, "destination")
    assert plain.codes == {("address-of-host", "origin")}
    plain.must_say("origin", "--switch auto")
    plain.must_say("origin", "haproxy: source")
    alone = run_migrate(proxy.origin, "--check", "--switch", "forward", proxy.pid, "destination")
    assert ("forward-listener", "origin") in alone.codes
    proxy.assert_stayed()


def test_an_address_that_is_on_both_hosts(lab: Lab) -> None:
    """The network switches that one, as in figure 3, and the origin forwards the rest."""
    reset(lab)
    with figure_3(lab):
        _lead_to(lab, "origin")
        proxy = Proxy(lab, OWN["neighbour"])
        words = ("--switch", "forward+none", "--max-gap", "60")
        held = Held(proxy.origin, "SWITCHED", *words, proxy.pid, "destination")
        _lead_to(lab, "destination")
        held.go()
        ran = held.end()
        assert (ran.status, ran.report["addresses"]) == (0, [proxy.service]), ran.said
        proxy.assert_goes_on()
        assert proxy.clients() == proxy.ends
        proxy.end_forwards()


def _lead_to(lab: Lab, to: str) -> None:
    """The gateway's routes to the service addresses."""
    for address in lab.service:
        words = f"ip route replace {address}/{bits(address)} via {own(lab.hosts[to], address)}"
        lab.hosts["gateway"].exec(words.split())


def test_an_end_that_nobody_takes(proxy: Proxy) -> None:
    """Of a connection that somebody has closed at the host's own address: it stays, and is not waited for."""
    spawn(proxy.peer, [sys.executable, "-c", _DEAF])
    eventually(lambda: listeners(proxy.peer, 7777) == 1, "the deaf one listens")
    proxy.origin.exec([sys.executable, "-c", _FULL, proxy.address])
    assert "FIN-WAIT-1" in proxy.origin.exec(["ss", "-tan", "dport = :7777"]).stdout
    assert "to send" not in "".join(proxy.move().report["notes"])


_DEAF = """
import socket, time
listening = socket.create_server(("0.0.0.0", 7777))
taken, _ = listening.accept()
time.sleep(600)
"""
_FULL = """
import socket, sys
sock = socket.create_connection((sys.argv[1], 7777))
sock.setblocking(False)
try:
    while True:
        sock.send(bytes(1 << 20))
except BlockingIOError:
    sock.close()
"""
