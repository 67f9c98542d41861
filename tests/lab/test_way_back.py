"""A process that goes on where it was: its peers hear at once, whoever undoes, and wait for no timer of theirs.

Judged by the peer's own counters. The process is a real redis-server, the peers are plain sockets.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from harness.hosts import connect, patient, spawn, ss
from harness.migrate import Event, Held
from harness.wait import DEADLINE_S, eventually

from migrate.lab import Lab

PORT = 7500
CONNECTIONS = 10
#: A sender that hears nothing repeats itself after so long.
PATIENCE_S = 30
#: A request for a connection is repeated after 1, 3, 7 and 15 s (TCP_TIMEOUT_INIT), if not every second at first.
#: So long after it nothing is due for seconds.
QUIET_S = 7.6
COUNTERS = ("TcpRetransSegs", "TcpExtTCPTimeouts", "TcpExtTCPSynRetrans")

pytestmark = pytest.mark.usefixtures("clean")


class Gap:
    """A migration that stands still in *state*, and peers that have asked since.

    :ivar driver: its PID. :ivar before: the peer's counters, in the moment in which it is to be rolled back.
    """

    def __init__(self, lab: Lab, pid: int, address: str, peers: list[socket.socket], state: str) -> None:
        self.lab, self.peers = lab, peers
        self.held = Held(lab.hosts["origin"], state, "--max-gap", 60, pid, "destination")
        self.driver = self.held.driver
        for peer in peers:
            peer.sendall(b"PING\r\n")
        self.newcomers: list[socket.socket] = []
        self._coming = threading.Thread(
            target=lambda: self.newcomers.append(connect(lab.hosts["peer"], address, PORT)), daemon=True
        )
        self._coming.start()
        time.sleep(QUIET_S)
        self.before = counters(lab)

    def kill(self, *pids: int, signal: str) -> None:
        self.lab.hosts["origin"].exec(["kill", f"-{signal}", *map(str, pids)])

    @property
    def guardian(self) -> int:
        return int(self.lab.hosts["origin"].exec(["pgrep", "-f", "migrate.recovery.guardian"]).stdout)

    def assert_answered(self) -> None:
        """All are answered, and none of them had to repeat itself for it."""
        began = time.monotonic()
        for peer in self.peers:
            peer.settimeout(DEADLINE_S)
            assert peer.recv(100) == b"+PONG\r\n"
        self._coming.join(2 * DEADLINE_S)
        print(f"last answer after {1000 * (time.monotonic() - began):.0f} ms")
        assert counters(self.lab) == self.before
        self.newcomers[0].sendall(b"PING\r\n")
        assert self.newcomers[0].recv(100) == b"+PONG\r\n"
        self.newcomers[0].close()

    def end(self) -> Event:
        return self.held.end().report


def counters(lab: Lab) -> dict[str, int]:
    """What the peer's TCP had to repeat so far, says ``nstat``."""
    found = json.loads(lab.hosts["peer"].exec(["nstat", "-asz", "--json", *COUNTERS]).stdout)["kernel"]
    return {name: found[name] for name in COUNTERS}


@contextlib.contextmanager
def gap(lab: Lab, version: str, state: str) -> Iterator[Gap]:
    """A redis-server on origin with connections."""
    address = getattr(lab.service, version)
    words = ["redis-server", "--port", str(PORT), "--bind", address, "--save", "", "--protected-mode", "no"]
    pid = spawn(lab.hosts["origin"], words)
    eventually(lambda: ss(lab.hosts["origin"], "-l", f"sport = {PORT}"), "the server listens")
    linear = ["sysctl", "-qw", "net.ipv4.tcp_syn_linear_timeouts=0"]
    lab.hosts["peer"].exec(linear, check=False)  # which older kernels have not
    try:
        with patient(lab, address, PATIENCE_S):
            peers = [connect(lab.hosts["peer"], address, PORT) for _ in range(CONNECTIONS)]
            yield Gap(lab, pid, address, peers, state)
            for peer in peers:
                peer.close()
    finally:
        look = ["pgrep", "-f", "migrate.recovery.guardian"]
        eventually(
            lambda: not lab.hosts["origin"].exec(look, check=False).stdout,
            "no guardian announces any more",
            30,
        )


@pytest.mark.parametrize(
    ("version", "state"),
    [("ipv4", "ISOLATED"), ("ipv6", "ISOLATED"), ("ipv4", "SWITCHED"), ("ipv6", "SWITCHED")],
)
def test_the_driver_rolls_back(lab: Lab, version: str, state: str) -> None:
    with gap(lab, version, state) as stopped:
        stopped.kill(stopped.driver, signal="INT")
        stopped.assert_answered()
        assert stopped.end()["outcome"] == "ROLLED_BACK"


@pytest.mark.parametrize("state", ["ISOLATED", "RESTORED"])
def test_the_guardian_rolls_back(lab: Lab, state: str) -> None:
    """The driver's packet sockets are its own, too; a copy is kept of packets that were sent on."""
    with gap(lab, "ipv4", state) as stopped:
        stopped.kill(stopped.driver, signal="KILL")
        stopped.assert_answered()


def test_recover_rolls_back(lab: Lab) -> None:
    with gap(lab, "ipv4", "RESTORED") as stopped:
        stopped.kill(stopped.driver, stopped.guardian, signal="KILL")
        lab.hosts["origin"].exec(["migrate", "--recover"])
        stopped.assert_answered()


def test_a_request_for_a_connection_that_was_held(lab: Lab) -> None:
    """Before the connections are cut off only new ones are held."""
    with gap(lab, "ipv4", "FROZEN") as stopped:
        stopped.kill(stopped.driver, signal="INT")
        stopped.assert_answered()
        assert stopped.end()["outcome"] == "ROLLED_BACK"
