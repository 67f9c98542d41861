"""The library between two hosts, without CRIU and without `migrate`: every state and queue is passed.

The judges are the peer's bytes, the peer's capture and ``ss``.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
from typing import Any, NamedTuple

import pytest
from drain import Drain
from harness.captures import Capture
from harness.hosts import connect, ss
from harness.pcap import End, Packet, distance
from harness.tcp_rules import Connection, around, faults
from harness.wait import eventually
from passing_lab import (
    Passer,
    content,
    deaf,
    hand_over,
    passers,
    service_on_both,
    switch,
)

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("no_filter_left")

PORT = 7000
MORE_BYTES = 100_000
#: More than any queue takes.
ENDLESS = 12_000_000


class Shape(NamedTuple):
    """A connection as it is when it is passed; what happens before, in this order.

    :ivar state: as the passed ICI must name it.
    :ivar peer_sends: bytes that the server does not read; :ivar peer_shuts: then the peer's FIN.
    :ivar deaf: from here on nothing reaches the peer.
    :ivar server_sends: bytes that the peer does not read; :ivar server_shuts: then the server's FIN.
    :ivar peer_shuts_last: at the end the peer's FIN.
    """

    state: str
    peer_sends: int = 0
    peer_shuts: bool = False
    deaf: bool = False
    server_sends: int = 0
    server_shuts: bool = False
    peer_shuts_last: bool = False

    @property
    def server_is_mute(self) -> bool:
        return self.server_shuts

    @property
    def peer_is_mute(self) -> bool:
        return self.peer_shuts or self.peer_shuts_last


SHAPES = {
    "idle": Shape("ESTABLISHED"),
    "receive queue": Shape("ESTABLISHED", peer_sends=50_000),
    "sent and lost": Shape("ESTABLISHED", deaf=True, server_sends=9_000),
    "send window full": Shape("ESTABLISHED", server_sends=ENDLESS),
    "our window full": Shape("ESTABLISHED", peer_sends=ENDLESS),
    "both full": Shape("ESTABLISHED", peer_sends=ENDLESS, server_sends=ENDLESS),
    "close wait": Shape("CLOSE_WAIT", peer_sends=20_000, peer_shuts=True),
    "close wait, both queues": Shape("CLOSE_WAIT", 20_000, True, server_sends=ENDLESS),
    "fin wait 1": Shape("FIN_WAIT1", deaf=True, server_sends=5_000, server_shuts=True),
    "fin wait 1, unsent": Shape("FIN_WAIT1", server_sends=ENDLESS, server_shuts=True),
    "fin wait 2": Shape("FIN_WAIT2", peer_sends=20_000, server_sends=20_000, server_shuts=True),
    "last ack": Shape("LAST_ACK", 20_000, True, deaf=True, server_sends=5_000, server_shuts=True),
    "last ack, unsent": Shape("LAST_ACK", 100, True, server_sends=ENDLESS, server_shuts=True),
    "closing": Shape("CLOSING", deaf=True, server_shuts=True, peer_shuts_last=True),
    "close": Shape("CLOSE", peer_sends=20_000, peer_shuts=True, server_shuts=True),
}
NAMES = list(SHAPES)


class Line:
    """One connection: the peer's end, which is ours, and what was sent on it."""

    def __init__(self, lab: Lab, origin: Passer, address: str, name: str) -> None:
        self.name, self.shape = name, SHAPES[name]
        self.sock = connect(lab.hosts["peer"], address, PORT)
        self.port = self.sock.getsockname()[1]
        self.number = origin.ask("accept")
        self.to_server = self.to_peer = b""

    def peer_fills(self) -> None:
        """The peer sends until the kernel takes no more."""
        data = content(f"peer {self.number}", self.shape.peer_sends)
        self.sock.setblocking(False)
        done = 0
        with contextlib.suppress(BlockingIOError):
            while done < len(data):
                done += self.sock.send(data[done : done + 1_000_000])
        self.sock.settimeout(20)
        self.to_server = data[:done]
        if self.shape.peer_shuts:
            self.sock.shutdown(socket.SHUT_WR)

    def server_fills(self, origin: Passer) -> None:
        """The server sends until the kernel takes no more."""
        size = self.shape.server_sends
        if size:
            name = f"server {self.number}"
            self.to_peer = content(name, size)[
                : origin.ask("send", number=self.number, name=name, size_bytes=size)
            ]
        if self.shape.server_shuts:
            origin.ask("shut", number=self.number)

    def finish(self) -> Drain:
        """The peer sends what is left, closes, and reads."""
        reader = Drain(self.sock)
        if not self.shape.peer_is_mute:
            more = content(f"peer's more {self.number}", MORE_BYTES)
            self.sock.sendall(more)
            self.to_server += more
            self.sock.shutdown(socket.SHUT_WR)
        if not self.shape.server_is_mute:
            self.to_peer += content(f"more {self.number}", MORE_BYTES)
        return reader


def set_up(lab: Lab, origin: Passer, kind: str) -> list[Line]:
    """All shapes, as far as they get while the peer hears."""
    address = lab.service.ipv6 if kind == "v6" else lab.service.ipv4
    origin.ask("listen", address=address, port=PORT, mapped=kind == "mapped")
    lines = [Line(lab, origin, address, name) for name in SHAPES]
    for line in lines:
        line.peer_fills()
    settled(lab)
    return lines


def settled(lab: Lab) -> None:
    """Nothing moves any more: two looks at the origin's sockets agree."""
    last: list[Any] = []

    def same() -> bool:
        now = [
            (one["state"], one["recv_q"], one["send_q"], one["peer"]) for one in connections(lab, "origin")
        ]
        unchanged = now == last
        last[:] = now
        return unchanged

    eventually(same, "the connections are settled")


def connections(lab: Lab, host: str) -> list[dict[str, str]]:
    """The server's connections, says ss, by the peer's port."""
    found = ss(lab.hosts[host], f"sport = {PORT}")
    return sorted((one for one in found if one["state"] != "LISTEN"), key=lambda one: one["peer"])


def sizes(lab: Lab, host: str) -> dict[str, str]:
    """Segment size by the peer's port."""
    return {one["peer"].rsplit(":", 1)[1]: one["mss"] for one in connections(lab, host) if "mss" in one}


@pytest.mark.parametrize(
    ("kind", "same_path"), [("v4", True), ("v6", True), ("mapped", True), ("v4", False), ("v6", False)]
)
def test_every_state_and_queue(lab: Lab, kind: str, same_path: bool) -> None:
    peer = lab.hosts["peer"]
    capture = Capture(peer, "eth0", f"tcp port {PORT}")
    with service_on_both(lab), passers(lab) as (origin, destination), capture:
        lines = set_up(lab, origin, kind)
        mute = [line.number for line in lines if line.shape.server_is_mute]
        deaf_ports = [line.port for line in lines if line.shape.deaf]
        with deaf(peer, deaf_ports):
            for line in lines:
                line.server_fills(origin)
                if line.shape.peer_shuts_last:
                    line.sock.shutdown(socket.SHUT_WR)
            settled(lab)
            before = sizes(lab, "origin")
            handed, _ = hand_over(origin, destination, same_path=same_path)
            assert dict(zip(NAMES, handed["states"], strict=True)) == {n: s.state for n, s in SHAPES.items()}
            assert sizes(lab, "destination") == before
            switch(lab, "destination")
            origin.ask("release")
        destination.ask("activate")
        destination.tell("finish", more_bytes=MORE_BYTES, mute=mute)
        readers = [line.finish() for line in lines]
        results = destination.answer()
        for line, reader, result in zip(lines, readers, results, strict=True):
            reader.finished(line.to_peer, line.name)
            expected = hashlib.sha256(line.to_server).hexdigest()
            assert result == {"received": len(line.to_server), "digest": expected}, line.name
            line.sock.close()
    address = lab.service.ipv6 if kind == "v6" else lab.service.ipv4
    judge_capture(capture, lines, address, handed["isolated_at_s"])


def judge_capture(capture: Capture, lines: list[Line], address: str, passed_at: float) -> None:
    """Nothing that TCP forbids, and nothing sent before the passing is sent again, but what was lost."""
    judged = capture.connections(lossless=False)
    by_port = {line.port: line for line in lines}
    assert len(judged) == len(lines)
    service = (address, PORT)
    assert faults(judged) == [], _told(judged, by_port, service)
    for one in judged:
        (peer,) = set(one.ends) - {service}
        line, ours = by_port[peer[1]], one.sides[service]
        assert all(side.syn_seen for side in one.sides.values()), line.name
        assert ours.rounded == 0, f"{line.name}: the window was taken back by {ours.rounded}"
        if not line.shape.deaf:
            assert sent_across(one.sent_by(service), passed_at) == [], line.name


def _told(judged: list[Connection], by_port: dict[int, Line], service: End) -> str:
    """Of each that has a fault which one it is, and what was sent around it."""
    return "\n".join(
        around(one, by_port[(set(one.ends) - {service}).pop()[1]].name) for one in judged if faults([one])
    )


def sent_across(ours: list[Packet], passed_at: float) -> list[Packet]:
    """Segments sent after the passing that say again what was said before it."""
    first = ours[0].seq
    before = max(distance(one.seq, first) + one.size for one in ours if one.at_s < passed_at)
    after = [one for one in ours if one.at_s >= passed_at and one.size]
    return [one for one in after if distance(one.seq, first) < before]


PATH = ("cwnd", "ssthresh", "mss", "congestion")


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
@pytest.mark.parametrize("kind", ["v4", "v6", "mapped"])
def test_speed_is_kept_where_the_path_is_the_same(lab: Lab, kind: str, algorithm: str) -> None:
    """Paper 5 and 8: ss says the same before and after, and the retransmission timer is no longer."""
    address = lab.service.ipv6 if kind == "v6" else lab.service.ipv4
    with service_on_both(lab), passers(lab) as (origin, destination):
        origin.ask("listen", address=address, port=PORT, mapped=kind == "mapped", congestion=algorithm)
        sock = connect(lab.hosts["peer"], address, PORT)
        origin.ask("accept")
        sock.settimeout(20)
        lose_some(lab, sock, origin)
        mine = f":{sock.getsockname()[1]}"
        (before,) = [one for one in connections(lab, "origin") if one["peer"].endswith(mine)]
        hand_over(origin, destination, same_path=True)
        (after,) = [one for one in connections(lab, "destination") if one["peer"].endswith(mine)]
        assert int(before["cwnd"]) != 10 and "ssthresh" in before
        assert {name: after.get(name) for name in PATH} == {name: before.get(name) for name in PATH}
        assert float(after["rto"]) <= float(before["rto"]) + 20
        switch(lab, "destination")
        origin.ask("release")
        destination.ask("activate")
        destination.ask("send", number=0, name="more", size_bytes=MORE_BYTES)
        assert read_exactly(sock, MORE_BYTES) == content("more", MORE_BYTES)
        sock.close()


def lose_some(lab: Lab, sock: socket.socket, origin: Passer) -> None:
    """Megabytes to the peer, of which it loses some: the origin then knows a threshold."""
    peer = lab.hosts["peer"]
    chain = f"type filter hook input priority -400; tcp sport {PORT} numgen inc mod 40 == 39 drop;"
    peer.exec(["nft", f"table inet lossy {{ chain c {{ {chain} }}; }}"])
    for _ in range(5):
        sent = origin.ask("send", number=0, name="bulk", size_bytes=ENDLESS)
        assert len(read_exactly(sock, sent)) == sent
    peer.exec(["nft", "delete table inet lossy"])
    settled(lab)


def read_exactly(sock: socket.socket, size_bytes: int) -> bytes:
    """That many bytes."""
    found = bytearray()
    while len(found) < size_bytes:
        found += sock.recv(size_bytes - len(found))
    return bytes(found)
