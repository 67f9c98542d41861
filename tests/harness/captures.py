"""Captures of a host of a lab, and what every direction of a connection in them must be like."""

from __future__ import annotations

import itertools
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

from harness import pcap
from harness.migrate import Ran
from harness.pcap import ACK as ACK
from harness.pcap import FIN as FIN
from harness.pcap import RST
from harness.pcap import SYN as SYN
from harness.wait import DEADLINE_S
from migrate.lab import Host


class Packet(NamedTuple):
    """One TCP segment as the capturing host saw it.

    :ivar stream: number of the connection, from 0; other numbers on the same ports begin a new one.
    :ivar at: seconds since the epoch.
    :ivar sender: address.port of who sent it.
    :ivar seq, ack: raw, modulo 2**32.
    :ivar flags: of the TCP header.
    :ivar tsval, tsecr: RFC 7323; None without the option.
    :ivar ttl: or hop limit.
    :ivar window: in bytes, as its sender means it; unknown, and not scaled, where the handshake was not captured.
    """

    stream: int
    at: float
    sender: str
    seq: int
    ack: int
    payload: bytes
    flags: int
    tsval: int | None
    tsecr: int | None
    ttl: int
    window: int = 0

    def __repr__(self) -> str:
        flags = "".join(letter for bit, letter in enumerate("FSRPA.") if self.flags >> bit & 1)
        stamps = f"TSval {self.tsval} TSecr {self.tsecr}"
        where = f"{self.at:.6f} {self.sender}"
        return f"<{where} [{flags}] {self.seq} +{len(self.payload)} ack {self.ack} {stamps}>"


class Capture:
    """tcpdump on one interface of *host*, running inside the ``with`` block.

    Entering returns when it captures; leaving ends it, and fails if the kernel dropped a packet.
    """

    def __init__(self, host: Host, interface: str, words: str = "tcp", name: str = "capture") -> None:
        self._host, self._interface, self._words = host, interface, words
        self._inside = f"/tmp/{name}-{interface}.pcap"

    def __enter__(self) -> Self:
        # The ring has a slot of the largest packet for each one that waits: 256 kB for tcpdump's own limit, which
        # would leave few of them, and 64 kB for what the kernel makes (GSO). The ring is in KiB.
        sizes = ["-B", str(256 << 10), "-s", "66000"]
        command = ["tcpdump", "-Z", "root", "-n", "-U", "--immediate-mode", *sizes]
        self._process = self._host.popen(
            [*command, "-i", self._interface, "-w", self._inside, self._words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = []
        assert self._process.stderr is not None
        for line in self._process.stderr:
            said.append(line)
            if "listening on" in line:
                return self
        raise AssertionError("tcpdump: " + "".join(said))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        _, said = self._process.communicate(timeout=DEADLINE_S)
        if kind is None:
            assert "\n0 packets dropped by kernel" in "\n" + said, said

    def packets(self) -> list[Packet]:
        """All TCP segments, in the order in which they were seen."""
        path = self._host.root / self._inside[1:]
        return in_streams(pcap.read(path))


def in_streams(found: Iterable[pcap.Packet]) -> list[Packet]:
    """The packets of a file, each with its connection."""
    streams: dict[frozenset[pcap.End], _Stream] = {}
    numbers = itertools.count()
    packets = []
    for one in found:
        key = frozenset((one.sender, one.receiver))
        known = streams.get(key)
        if known is None or known.begins_again(one):
            known = streams[key] = _Stream(next(numbers))
        packets.append(known.packet(one))
    return packets


class _Stream:
    """One connection of a capture: its number, the numbers of its SYNs, and how far windows are shifted."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.first: dict[pcap.End, int] = {}
        self.scales: dict[pcap.End, int | None] = {}

    def begins_again(self, one: pcap.Packet) -> bool:
        """Whether *one* is a SYN of another connection on the same ports."""
        return bool(one.flags & SYN) and self.first.get(one.sender, one.seq) != one.seq

    def packet(self, one: pcap.Packet) -> Packet:
        """*one*, which is its next."""
        self.first.setdefault(one.sender, one.seq)
        if one.flags & SYN:
            self.scales[one.sender] = one.scale
        agreed = None not in (*self.scales.values(), None if len(self.scales) < 2 else 0)
        scale = self.scales[one.sender] if agreed and not one.flags & SYN else 0
        tsval, tsecr = one.timestamps or (None, None)
        sender = f"{one.sender[0]}.{one.sender[1]}"
        end = (one.seq, one.ack, one.payload, one.flags, tsval, tsecr, one.ttl, one.window << (scale or 0))
        return Packet(self.number, one.at_s, sender, *end)


def directions(packets: Iterable[Packet]) -> dict[tuple[int, str], list[Packet]]:
    """The segments of each connection by who sent them, in the order in which they were sent.

    On a lab of several processors a segment may overtake another one: what two of them forward at once is
    not kept in order. That is put right here, but only among segments much closer than a migration's gap.
    """
    found: defaultdict[tuple[int, str], list[Packet]] = defaultdict(list)
    for packet in packets:
        same = found[packet.stream, packet.sender]
        place = len(same)
        while place and packet.at - same[place - 1].at < _OVERTAKING_S and _earlier(packet, same[place - 1]):
            place -= 1
        same.insert(place, packet)
    return dict(found)


_OVERTAKING_S = 0.002


def _earlier(one: Packet, other: Packet) -> bool:
    """Whether *one* was sent before *other*, as far as they say."""
    if (one.flags | other.flags) & SYN:  # whose acknowledgement number says nothing
        return bool(one.flags & ~other.flags & SYN)
    ahead = (
        distance(one.tsval or 0, other.tsval or 0),
        distance(one.ack, other.ack),
        distance(one.tsecr or 0, other.tsecr or 0),
        distance(one.seq, other.seq),
    )
    return next((step < 0 for step in ahead if step), False)


def answers_to(both: dict[tuple[int, str], list[Packet]], stream: int, sender: str) -> list[Packet]:
    """The other direction, of :func:`directions`."""
    return next((found for (number, name), found in both.items() if number == stream and name != sender), [])


def distance(new: int, old: int) -> int:
    """How far *new* is ahead of *old*, modulo 2**32; negative if it is behind."""
    return (new - old + 2**31) % 2**32 - 2**31


def assert_no_reset(packets: Iterable[Packet]) -> None:
    """Nobody reset anything."""
    resets = [packet for packet in packets if packet.flags & RST]
    assert not resets, resets


def sent_again(packets: list[Packet]) -> list[Packet]:
    """One direction: those with octets of which none is new."""
    found, furthest = [], None
    for packet in packets:
        octets = len(packet.payload) + bool(packet.flags & SYN) + bool(packet.flags & FIN)
        if not octets:
            continue
        if furthest is not None and distance(packet.seq + octets, furthest) <= 0:
            found.append(packet)
        else:
            furthest = packet.seq + octets
    return found


def assert_sequence_never_back(packets: list[Packet], answers: list[Packet]) -> bytes:
    """One direction: every segment follows the one before or says again what was said; return the stream.

    No gap either: what was never sent cannot be followed. A segment without content may begin earlier only if
    it is a keep-alive or window probe, which has the number before the oldest octet that is not acknowledged
    (RFC 9293 section 3.8.4; net/ipv4/tcp_output.c tcp_xmit_probe_skb()).

    :param answers: the other direction.
    """
    first, told = packets[0].seq, _acknowledged_with_octets(answers)
    stream = bytearray(1 if packets[0].flags & SYN else 0)
    ended = False  # a FIN has a number too
    for packet in packets:
        begin = distance(packet.seq, first) + bool(packet.flags & SYN)
        assert begin <= len(stream) + ended, f"a gap of {begin - len(stream)}: {packet}"
        if not packet.payload and not packet.flags & FIN and begin < len(stream) - 1:
            known = [distance(ack, first) for end, ack in told if distance(end, packet.ack) <= 0]
            early = max(known, default=0) - begin
            assert early <= 1, f"back by {len(stream) - begin}, {early} of it acknowledged: {packet}"
        again = stream[begin : begin + len(packet.payload)]
        assert again == packet.payload[: len(again)], f"something else at the same place: {packet}"
        stream += packet.payload[len(again) :]
        ended = ended or bool(packet.flags & FIN)
    return bytes(stream)


def _acknowledged_with_octets(packets: list[Packet]) -> list[tuple[int, int]]:
    """The numbers behind octets that are new in one direction, and what was acknowledged along with them.

    Whoever acknowledges such octets knows that acknowledgement too. Of the others nobody can say whether they
    were lost; a migration loses some. What is sent again says more than what may have arrived before.
    """
    found: list[tuple[int, int]] = []
    last = None
    for packet in packets:
        octets = len(packet.payload) + bool(packet.flags & SYN) + bool(packet.flags & FIN)
        end = packet.seq + octets
        if not octets or (last is not None and distance(end, last) <= 0):
            continue
        last = end
        if packet.flags & ACK:
            found.append((end, packet.ack))
    return found


def assert_acknowledgements_never_back(packets: list[Packet]) -> None:
    """One direction: nothing that was acknowledged is taken back."""
    for before, after in zip(packets, packets[1:], strict=False):
        if before.flags & after.flags & ACK:
            assert distance(after.ack, before.ack) >= 0, f"{before} {after}"


def assert_timestamps_go_on(packets: list[Packet], slack_ms: float = 3.0) -> float:
    """One direction: TSval never goes back, nor ahead of time; return by how many ms it ran ahead.

    A segment may reach the capture late, so a clock that goes on shows up as TSval minus time staying at or
    below its highest value so far. Clocks of 1 ms.
    """
    first, highest, worst = packets[0], 0.0, 0.0
    for number, (before, after) in enumerate(zip(packets, packets[1:], strict=False)):
        assert before.tsval is not None and after.tsval is not None and first.tsval is not None
        assert distance(after.tsval, before.tsval) >= 0, f"TSval went back: {before} {after}"
        ahead = distance(after.tsval, first.tsval) - 1000 * (after.at - first.at)
        if number > _WARM_UP:
            worst = max(worst, ahead - highest)
        assert worst <= slack_ms, f"TSval {worst:.1f} ms ahead of time: {after}"
        highest = max(highest, ahead)
    return worst


def assert_echoes_never_back(packets: list[Packet]) -> int:
    """One direction: TSecr never goes back; return how many segments have none (0, in spite of an ACK)."""
    acks = [packet for packet in packets if packet.flags & ACK]
    known = [packet for packet in acks if packet.tsecr]
    for before, after in zip(known, known[1:], strict=False):
        assert distance(after.tsecr or 0, before.tsecr or 0) >= 0, f"TSecr went back: {before} {after}"
    return len(acks) - len(known)


#: So many segments are needed to see one that was not late.
_WARM_UP = 10


def across(packets: list[Packet], moved: Ran) -> tuple[Packet, Packet]:
    """One direction: the two segments around the longest silence while *moved* was made."""
    during = [packet for packet in packets if moved.began <= packet.at <= moved.ended]
    pairs = zip(during, during[1:], strict=False)
    return max(pairs, key=lambda pair: pair[1].at - pair[0].at)
