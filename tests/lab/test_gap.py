"""What the peers send in the gap is carried over: nobody waits for a timer. Judged by the peer's own counters.

The process is a real redis-server, the peers are plain sockets.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import threading
import time

import pytest
from harness.captures import Capture
from harness.hosts import MOVERS, connect, patient, spawn, ss
from harness.left import addresses
from harness.migrate import Held, move
from harness.tcp_rules import faults, resets
from harness.wait import DEADLINE_S, eventually

from migrate.lab import Lab

PORT = 7500
CONNECTIONS = 20
#: A request for a connection is sent again after this time (net/tcp.h TCP_TIMEOUT_INIT), whoever answers, and so
#: is anything else after longer: see patient.
SYN_RTO_S = 1.0
PATIENCE_S = 12
TRIES = 5
COUNTERS = ("TcpRetransSegs", "TcpExtTCPTimeouts", "TcpExtTCPLossProbes", "TcpExtTCPSynRetrans")

pytestmark = pytest.mark.usefixtures("clean")


def start(lab: Lab, address: str) -> int:
    """Start redis-server on origin."""
    words = ["redis-server", "--port", str(PORT), "--bind", address, "--save", "", "--protected-mode", "no"]
    pid = spawn(lab.hosts["origin"], words)
    eventually(lambda: ss(lab.hosts["origin"], "-l", f"sport = {PORT}"), "the server listens")
    return pid


def counters(lab: Lab) -> dict[str, int]:
    """What the peer's TCP had to repeat so far, says ``nstat``."""
    words = ["nstat", "-asz", "--json", *COUNTERS]
    found = json.loads(lab.hosts["peer"].exec(words).stdout)["kernel"]
    return {name: found[name] for name in COUNTERS}


def answer(sock: socket.socket) -> bytes:
    sock.settimeout(DEADLINE_S)
    return sock.recv(100)


def ask_in_the_gap(lab: Lab, pid: int, peers: list[socket.socket], start: str) -> float:
    """Move *pid* while each of *peers* asks, and another one connects and asks; return how long that took."""
    address = peers[0].getpeername()[0]
    fresh = connect(lab.hosts["peer"], address, PORT)
    fresh.close()
    end = MOVERS[1 - MOVERS.index(start)]
    held = Held(lab.hosts[start], "ISOLATED", pid, end)
    newcomers: list[socket.socket] = []
    coming = threading.Thread(
        target=lambda: newcomers.append(connect(lab.hosts["peer"], address, PORT)), daemon=True
    )
    go = lab.hosts[start].popen(
        ["sh", "-c", f"read _; touch /run/migrate/{held.id}/go"],
        stdin=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    for peer in peers:
        peer.sendall(b"PING\r\n")
    coming.start()
    go.communicate("go\n")
    for peer in peers:
        assert answer(peer) == b"+PONG\r\n"
    coming.join(DEADLINE_S)
    took_s = time.monotonic() - began
    newcomers[0].sendall(b"PING\r\n")
    assert answer(newcomers[0]) == b"+PONG\r\n"
    newcomers[0].close()
    report = held.end().report
    assert report["outcome"] == "MOVED", report
    assert report["gap_packets"] >= len(peers) + 1
    assert report["gap_dropped"] == 0
    return took_s


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_what_is_asked_in_the_gap_is_answered_after_it(lab: Lab, version: str) -> None:
    """Requests and a request for a connection: each is sent once."""
    address = getattr(lab.service, version)
    pid = start(lab, address)
    with (
        patient(lab, address, PATIENCE_S),
        Capture(lab.hosts["peer"], "eth0", f"tcp port {PORT}") as capture,
    ):
        peers = [connect(lab.hosts["peer"], address, PORT) for _ in range(CONNECTIONS)]
        for number in range(TRIES):
            before = counters(lab)
            took_s = ask_in_the_gap(lab, pid, peers, MOVERS[number % 2])
            after = counters(lab)
            print(f"from the first question to the last answer: {1000 * took_s:.0f} ms")
            if took_s < SYN_RTO_S:
                break
        assert took_s < SYN_RTO_S, f"no gap in {TRIES} was short enough to tell"
        assert after == before
    assert resets(capture.packets()) == []


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_late_packets_are_forwarded_and_draw_no_reset(lab: Lab, version: str) -> None:
    """The gateway does not learn that the address has moved, until the migration has ended."""
    address, gateway = getattr(lab.service, version), lab.hosts["gateway"]
    pid = start(lab, address)
    peer = connect(lab.hosts["peer"], address, PORT)
    mac = lab.hosts["origin"].exec(["cat", "/sys/class/net/eth0/address"]).stdout.strip()
    device = json.loads(gateway.exec(["ip", "-json", "route", "get", address]).stdout)[0]["dev"]
    router = [
        next(one for one in addresses(gateway) if one.startswith(address[:7])),
        "lladdr",
        gateway.exec(["cat", f"/sys/class/net/{device}/address"]).stdout.strip(),
    ]
    # The destination could not ask for its way to the peer with the address that the gateway has elsewhere.
    lab.hosts["destination"].exec(["ip", "neigh", "replace", *router, "dev", "eth0", "nud", "permanent"])
    neighbour = [address, "lladdr", mac, "dev", device, "nud", "permanent"]
    gateway.exec(["ip", "neigh", "replace", *neighbour])
    stop, asked = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            peer.sendall(b"PING\r\n")
            if not select.select([peer], [], [], DEADLINE_S)[0] or peer.recv(100) != b"+PONG\r\n":
                return
            asked.append(time.time())

    with Capture(lab.hosts["peer"], "eth0", f"tcp port {PORT}") as capture:
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        try:
            moved = move(lab, pid)
        finally:
            gateway.exec(["ip", "neigh", "del", address, "dev", device])
            lab.hosts["destination"].exec(["ip", "neigh", "del", router[0], "dev", "eth0"])
        eventually(lambda: asked[-1] > moved.ended, "it goes on when the gateway has learned it")
        stop.set()
        asking.join(DEADLINE_S)
    assert not asking.is_alive()
    assert moved.report["gap_packets"] > 10
    (one,) = judged = capture.connections()
    assert faults(judged) == []
    assert all(side.packets for side in one.sides.values())


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_a_delayed_acknowledgement_is_due_in_the_gap(lab: Lab, version: str) -> None:
    """It goes out after it, and nobody waits for a timer.

    With Nagle's algorithm a second write waits for the first one to be acknowledged, which the server delays by
    40 ms. A few of these questions, which are asked one after the other, come less than that before the gap.
    """
    address = getattr(lab.service, version)
    pid = start(lab, address)
    with patient(lab, address, PATIENCE_S):
        peers = [connect(lab.hosts["peer"], address, PORT) for _ in range(10 * CONNECTIONS)]
        for peer in peers:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            peer.sendall(b"PING\r\n")
            assert answer(peer) == b"+PONG\r\n"  # from now on it delays its acknowledgements
        held = Held(lab.hosts["origin"], "DUMPED", "--max-gap", 60, pid, "destination")
        before = counters(lab)
        held.go()
        for peer in peers:
            peer.sendall(b"*1\r\n$4\r\n")
            peer.sendall(b"PING\r\n")
            time.sleep(0.01)
        for peer in peers:
            assert answer(peer) == b"+PONG\r\n"
        assert counters(lab) == before
        assert held.end().report["outcome"] == "MOVED"
