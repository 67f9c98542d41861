"""Connections that are half closed, or have much in their queues, are moved; both ends then do the rest.

The peer is the test itself, with plain sockets; the process is tests/workloads/obedient.py.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from harness.captures import Capture
from harness.hosts import connect, spawn, ss
from harness.migrate import Held, move
from harness.tcp_rules import resets
from harness.wait import DEADLINE_S, eventually
from harness.workloads import WORKLOADS

from migrate.lab import Lab

OBEDIENT = WORKLOADS / "obedient.py"
PORT = 7100
LOG = "/tmp/obedient.log"
MANY = 6_000_000
SOME = 300_000
#: What is on its way after a move must arrive within this time: no timer of a second is waited for.
QUICKLY_S = 1.0
#: Fits any receive window.
FEW = 40_000
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

sys.path.insert(0, str(WORKLOADS))
from obedient import content  # noqa: E402

pytestmark = pytest.mark.usefixtures("clean")


class Peer:
    """The peer's end of a connection with a plan."""

    def __init__(self, lab: Lab, name: str, *, ipv6: bool = False, **plan: Any) -> None:
        self.name, self.plan = name, plan
        address = lab.service.ipv6 if ipv6 else lab.service.ipv4
        self.sock = connect(lab.hosts["peer"], address, PORT)
        self.sent = self.received = b""
        self.sock.sendall(json.dumps({"name": name, **plan}).encode() + b"\n")
        self.port = str(self.sock.getsockname()[1])

    def push(self, most_bytes: int) -> None:
        """Send until the kernel takes no more."""
        data = content("peer" + self.name, most_bytes)
        self.sock.setblocking(False)
        try:
            while len(self.sent) < most_bytes:
                self.sent += data[len(self.sent) : len(self.sent) + self.sock.send(data[len(self.sent) :])]
        except BlockingIOError:
            pass
        self.sock.settimeout(DEADLINE_S)

    def send(self, size_bytes: int) -> None:
        """Send so many bytes more."""
        data = content("peer" + self.name, len(self.sent) + size_bytes)
        self.sock.sendall(data[len(self.sent) :])
        self.sent = data

    def read_to_the_end(self) -> None:
        """Everything until the process's FIN."""
        parts = [self.received]
        while data := self.sock.recv(1 << 18):
            parts.append(data)
        self.received = b"".join(parts)


def question(lab: Lab, word: str) -> Any:
    """Ask the process over a connection of its own."""
    with connect(lab.hosts["peer"], lab.service.ipv4, PORT) as sock:
        sock.sendall(json.dumps({"ask": word}).encode() + b"\n")
        answer = b""
        while data := sock.recv(1 << 16):
            answer += data
    return json.loads(answer)


def start(lab: Lab) -> int:
    """Start the process on origin."""
    pid = spawn(lab.hosts["origin"], [sys.executable, str(OBEDIENT), str(PORT)], log=LOG)
    eventually(lambda: len(ss(lab.hosts["origin"], "-l", f"sport = {PORT}")) == 2, "the server listens")
    return pid


def served(lab: Lab, where: str) -> dict[str, dict[str, str]]:
    """The process's ends of all connections, as ``ss`` on host *where* shows them, by the peer's port."""
    return {one["peer"].rpartition(":")[2]: one for one in ss(lab.hosts[where], f"sport = {PORT}")}


class Case(NamedTuple):
    """A state that the process's end is brought into.

    :ivar bring: does what the peer has to do for it.
    """

    name: str
    state: str
    plan: dict[str, Any]
    bring: Callable[[Peer], None] = lambda peer: None


def _push_few(peer: Peer) -> None:
    peer.push(FEW)


def _close(peer: Peer) -> None:
    peer.sock.shutdown(socket.SHUT_WR)


def _push_and_close(peer: Peer) -> None:
    peer.push(FEW)
    peer.sock.shutdown(socket.SHUT_WR)


#: So long nothing has moved.
STILL_S = 1.5
LATER = {"send_then": SOME, "shut_then": True}
#: Buffers so large that the process need not read, and can write everything at once.
LARGE = {"set": [[1, SO_RCVBUFFORCE, 2 * MANY], [1, SO_SNDBUFFORCE, 2 * MANY]]}
SHUT = LARGE | {"send": MANY, "shut": True}
CASES = (
    Case("established, idle", "ESTAB", LATER),
    Case("established, unread", "ESTAB", LATER | {"read": False}, lambda peer: peer.push(MANY)),
    Case("established, unsent", "ESTAB", LATER | {"send": MANY}),
    Case("established, both", "ESTAB", LATER | {"send": MANY, "read": False}, lambda peer: peer.push(MANY)),
    Case("established, much unread", "ESTAB", LATER | LARGE | {"read": False}, lambda peer: peer.push(MANY)),
    Case("established, much unsent", "ESTAB", LATER | LARGE | {"send": MANY}),
    Case("close wait, idle", "CLOSE-WAIT", LATER, _close),
    Case("close wait, unread", "CLOSE-WAIT", LATER | {"read": False}, _push_and_close),
    Case("close wait, unsent", "CLOSE-WAIT", LATER | {"send": MANY}, _close),
    Case("fin wait 2, idle", "FIN-WAIT-2", {"shut": True}),
    Case("fin wait 2, unread", "FIN-WAIT-2", {"shut": True, "read": False}, _push_few),
    Case("fin wait 1, unsent", "FIN-WAIT-1", SHUT),
    Case("fin wait 1, both", "FIN-WAIT-1", SHUT | {"read": False}, _push_few),
    Case("last ack, unsent", "LAST-ACK", SHUT, _close),
    Case("last ack, both", "LAST-ACK", SHUT | {"read": False}, _push_and_close),
)


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_every_state(lab: Lab, ipv6: bool) -> None:
    pid = start(lab)
    with Capture(lab.hosts["peer"], "eth0", f"tcp port {PORT}") as capture:
        peers = [bring(lab, case, ipv6) for case in CASES]
        before = eventually(lambda: settled(lab, peers), "every connection is in its state")
        # The process listens on every address, and could be meant to serve either.
        move(lab, pid, "--copy-files", "--address", lab.service.ipv4, "--address", lab.service.ipv6)
        after = served(lab, "destination")
        for case, peer in peers:
            assert_as_before(before[peer.port], after[peer.port], case)
        assert question(lab, "go") == "ok"
        took = {case.name: finish(case, peer) for case, peer in peers}
        report = question(lab, "report")
    print({name: round(seconds, 3) for name, seconds in took.items() if seconds > 0.05})
    assert max(took.values()) < QUICKLY_S, took
    for case, peer in peers:
        judge_content(case, peer, report[case.name])
    assert resets(capture.packets()) == []


def bring(lab: Lab, case: Case, ipv6: bool) -> tuple[Case, Peer]:
    """A connection on its way into the state of *case*."""
    peer = Peer(lab, case.name, ipv6=ipv6, **case.plan)
    case.bring(peer)
    return case, peer


def settled(lab: Lab, peers: list[tuple[Case, Peer]]) -> dict[str, dict[str, str]]:
    """What ``ss`` on origin shows, once every end is in its state and nothing moves any more.

    Who waits behind a window asks again and again, and gets a part of it now and then.
    """
    now = served(lab, "origin")
    time.sleep(STILL_S)
    later = served(lab, "origin")
    for case, peer in peers:
        for shown in (now.get(peer.port, {}), later.get(peer.port, {})):
            if shown.get("state") != case.state or any(
                shown[key] != now[peer.port][key] for key in ("recv_q", "send_q")
            ):
                return {}
    return later


def assert_as_before(before: dict[str, str], after: dict[str, str], case: Case) -> None:
    """What ``ss`` shows of the endpoint is what it showed on origin."""
    for key in ("state", "send_q", "mss", "congestion", "wscale"):
        assert after[key] == before[key], (case.name, key, before[key], after[key])
    # A FIN that the process has read already is there to be read again, which does no harm.
    assert int(after["recv_q"]) - int(before["recv_q"]) in (0, 1), case.name


def finish(case: Case, peer: Peer) -> float:
    """Both ends do the rest; return how many seconds that took."""
    began = time.monotonic()
    if case.state not in ("CLOSE-WAIT", "LAST-ACK"):
        peer.send(SOME)
        peer.sock.shutdown(socket.SHUT_WR)
    peer.read_to_the_end()
    return time.monotonic() - began


def judge_content(case: Case, peer: Peer, said: dict[str, Any]) -> None:
    """Both ends have got all that the other one sent."""
    size = case.plan.get("send", 0) + case.plan.get("send_then", 0)
    assert peer.received == content(case.name, size), f"{case.name}: {len(peer.received)} of {size}"
    assert said["error"] == ""
    assert said["ended"], case.name
    digest = hashlib.sha256(peer.sent).hexdigest()
    assert (said["received"], said["sha256"]) == (len(peer.sent), digest), case.name


def test_no_stall(lab: Lab) -> None:
    """The process sends, the peers read steadily: whatever is closed, the silence is that of the move."""
    pid = start(lab)
    readers = {}
    for state, shut, close in DOWNLOADS:
        peer = Peer(lab, state, set=LARGE["set"], send=2 * MANY, shut=shut)
        if close:
            peer.sock.shutdown(socket.SHUT_WR)
        readers[state] = Reader(peer)
        eventually(lambda p=peer, s=state: served(lab, "origin")[p.port]["state"] == s, state)
    for reader in readers.values():
        reader.start()
    eventually(lambda: all(reader.chunks > 5 for reader in readers.values()), "the downloads are under way")
    moved = move(lab, pid, "--copy-files")
    assert not any(reader.ended for reader in readers.values())
    for state, reader in readers.items():
        reader.finish()
        assert bytes(reader.got) == content(state, 2 * MANY)
    silences_ms = {state: round(1000 * reader.longest_s) for state, reader in readers.items()}
    print("silences in ms:", silences_ms, "isolated:", moved.report["isolated_ms"])
    assert max(silences_ms.values()) < moved.report["isolated_ms"] + STALL_MS


#: State, whether the process has shut down, whether the peer has.
DOWNLOADS = (
    ("ESTAB", False, False),
    ("CLOSE-WAIT", False, True),
    ("FIN-WAIT-1", True, False),
    ("LAST-ACK", True, True),
)
#: A lost segment may cost one retransmission after the shortest of the kernel's timeouts.
STALL_MS = 300


def test_ends_after_the_dump(lab: Lab) -> None:
    """The last acknowledgement arrives when CRIU has seen the connection already: it is not rebuilt."""
    pid = start(lab)
    ending, staying = Peer(lab, "ending", **SHUT), Peer(lab, "staying", **LATER)
    ending.sock.shutdown(socket.SHUT_WR)
    eventually(
        lambda: served(lab, "origin").get(ending.port, {}).get("state") == "LAST-ACK", "all is written"
    )
    held = Held(lab.hosts["origin"], "DUMPED", "--copy-files", pid, "destination")
    ending.read_to_the_end()
    eventually(lambda: ending.port not in served(lab, "origin"), "the connection has ended")
    held.go()
    report = held.end().report
    assert report["outcome"] == "MOVED", report
    assert ending.received == content("ending", MANY)
    assert question(lab, "go") == "ok"
    finish(Case("staying", "ESTAB", {}), staying)
    said = question(lab, "report")
    assert staying.received == content("staying", SOME)
    assert said["staying"]["error"] == said["ending"]["error"] == ""
    assert said["ending"]["sent"] == MANY


class Reader(threading.Thread):
    """Reads a connection to its end, or until all of a download is there.

    Until :meth:`finish` each read takes a small part of what is left, so that however long the move takes
    on a busy machine, something is left to be read after it.

    :ivar longest_s: the longest time without anything to read.
    """

    def __init__(self, peer: Peer) -> None:
        super().__init__(daemon=True)
        self.sock, self.size = peer.sock, 2 * MANY
        self.got, self.chunks, self.ended, self.longest_s = bytearray(), 0, False, 0.0
        self._moved = threading.Event()

    def finish(self) -> None:
        """The move is over: read the rest at full rate, to the end."""
        self._moved.set()
        self.join(DEADLINE_S)

    def run(self) -> None:
        """The thread."""
        while left := self.size - len(self.got):
            began = time.monotonic()
            data = self.sock.recv(1 << 16 if self._moved.is_set() else max(left // 200, 1 << 12))
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            if not data:
                break
            self.got += data
            self.chunks += 1
            self._moved.wait(0.04)
        self.ended = True
