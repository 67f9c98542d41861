"""What a TCP connection may not do, seen from one end of it; for :mod:`peer_view`.

Each rule holds for any endpoint that was never moved, and for both directions, so nobody has to know which
end was. A fault names the packet at which it shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.pcap import ACK, FIN, PSH, RST, SYN, Packet

_HALF = 2**31
#: So many full segments must have been seen before their size means something.
_ENOUGH = 3


def after(a: int, b: int) -> bool:
    """Whether the 32-bit number *a* comes after *b*."""
    return 0 < (a - b) % 2**32 < _HALF


@dataclass(slots=True)
class Direction:
    """What one end has sent so far, and what is wrong with it.

    :ivar faults: sentences. :ivar sizes: full segments' payloads, by number of moves before them.
    """

    name: str
    faults: list[str] = field(default_factory=list)
    packets: int = 0
    data_bytes: int = 0
    retransmitted: int = 0
    joined: int = 0
    longest_silence_ms: float = 0.0
    silence_at_s: float = 0.0
    scale: int | None = None
    mss: int | None = None
    first_seq: int | None = None
    sent_up_to: int = 0
    acked: int | None = None
    acks: set[int] = field(default_factory=set)
    edge: int | None = None
    tsval: int | None = None
    tsecr: int | None = None
    last_at_s: float | None = None
    syn_seen: bool = False
    stream: bytearray = field(default_factory=bytearray)
    known: bytearray = field(default_factory=bytearray)
    marks: dict[tuple[str, int], set[object]] = field(default_factory=dict)
    sizes: dict[int, Counter[int]] = field(default_factory=dict)

    def wrong(self, packet: Packet, text: str) -> None:
        """Note a fault."""
        self.faults.append(f"packet {packet.number}: {text}")


class Connection:
    """One connection: takes its packets in the order of the capture.

    :param moves: times (seconds since the epoch) at which an end moved; marks may be compared across them.
    """

    def __init__(self, first: Packet, moves: Sequence[float] = ()) -> None:
        self.ends = (first.sender, first.receiver)
        self._moves = sorted(moves)
        names = [f"{a}:{p}" if ":" not in a else f"[{a}]:{p}" for a, p in self.ends]
        self.sides = {end: Direction(name) for end, name in zip(self.ends, names, strict=True)}

    def take(self, packet: Packet) -> None:
        """Judge *packet*, which is the connection's next."""
        mine, other = self.sides[packet.sender], self.sides[packet.receiver]
        mine.packets += 1
        self._silence(mine, packet)
        if packet.flags & RST:
            mine.wrong(packet, "a reset")
            return
        if packet.flags & SYN:
            mine.syn_seen, mine.scale, mine.mss = True, packet.scale, packet.mss
        moved = sum(packet.at_s >= move for move in self._moves)
        fresh = _sequence(mine, other, packet)
        _content(mine, packet)
        _acknowledgement(mine, other, packet)
        _window(mine, other, packet)
        _timestamps(mine, other, packet)
        _marks(mine, packet, moved, fresh)
        _size(mine, other, packet, moved, fresh)

    @staticmethod
    def _silence(mine: Direction, packet: Packet) -> None:
        if mine.last_at_s is not None and (silence_ms := 1000 * (packet.at_s - mine.last_at_s)) > (
            mine.longest_silence_ms
        ):
            mine.longest_silence_ms, mine.silence_at_s = silence_ms, mine.last_at_s
        mine.last_at_s = packet.at_s

    def finish(self) -> None:
        """No more packets: judge what only the whole shows."""
        for side in self.sides.values():
            hole = side.known.find(0)
            if hole >= 0:
                missing = side.known.count(0)
                side.faults.append(f"{missing} bytes were never sent, the first at relative {hole}")
            for name, values in _kept(side.marks):
                shown = " -> ".join(str(sorted(map(str, one))) for one in values)
                side.faults.append(f"{name} changed: {shown}")
            side.faults += _sizes_kept(side.sizes)


def _sequence(mine: Direction, other: Direction, packet: Packet) -> bool:
    """Whether the packet carries something new. Counts retransmissions."""
    if mine.first_seq is None:
        mine.first_seq = mine.sent_up_to = packet.seq
    if after(mine.first_seq, packet.seq) and (packet.seq + 1) % 2**32 != mine.first_seq:
        mine.wrong(packet, f"sequence number {packet.seq} from before the connection's first")
        return False
    if packet.end == packet.seq:
        probe = (packet.seq + 1) % 2**32 in other.acks or (packet.seq + 1) % 2**32 == mine.first_seq
        if after(mine.sent_up_to, packet.seq) and not probe:
            mine.wrong(packet, f"an empty segment whose sequence number went back to {packet.seq}")
        if after(packet.seq, mine.sent_up_to):
            _grow(mine, packet.seq)
        return False
    fresh = after(packet.end, mine.sent_up_to)
    if fresh:
        _grow(mine, packet.end)
    elif not _is_probe(packet, other):
        mine.retransmitted += 1
    return fresh


def _is_probe(packet: Packet, other: Direction) -> bool:
    """A keepalive with one byte of what was acknowledged long ago."""
    return packet.size == 1 and other.acked is not None and packet.end == other.acked


def _grow(mine: Direction, end: int) -> None:
    assert mine.first_seq is not None
    mine.sent_up_to = end
    length = (end - mine.first_seq) % 2**32
    for store in (mine.stream, mine.known):
        store.extend(bytes(length - len(store)))


def _content(mine: Direction, packet: Packet) -> None:
    """No byte twice with different content. SYN and FIN take a place of their own."""
    assert mine.first_seq is not None
    start = (packet.seq - mine.first_seq) % 2**32
    if start >= _HALF:
        return
    if packet.flags & SYN:
        mine.known[start] = 1
        start += 1
    end = start + len(packet.payload)
    seen, old = mine.known[start:end], mine.stream[start:end]
    if seen.count(0) < len(seen):
        differs = [i for i, byte in enumerate(packet.payload) if seen[i] and old[i] != byte]
        if differs:
            mine.wrong(packet, f"other content than before at relative {start + differs[0]}")
    mine.stream[start:end] = packet.payload
    mine.known[start : start + packet.size] = b"\1" * packet.size
    if packet.size:
        mine.data_bytes = max(mine.data_bytes, start + packet.size)
    if packet.flags & FIN:
        mine.known[start + packet.size] = 1


def _acknowledgement(mine: Direction, other: Direction, packet: Packet) -> None:
    if not packet.flags & ACK:
        return
    if mine.acked is not None and after(mine.acked, packet.ack):
        mine.wrong(packet, f"its acknowledgement went back from {mine.acked} to {packet.ack}")
        return
    if other.first_seq is not None and after(packet.ack, other.sent_up_to):
        mine.wrong(packet, f"it acknowledges {packet.ack}, of which only {other.sent_up_to} was sent")
    mine.acked = packet.ack
    mine.acks.add(packet.ack)


def _window(mine: Direction, other: Direction, packet: Packet) -> None:
    """The right edge never moves back, but for rounding to the window's unit (RFC 7323 section 2.4).

    Unknown where the handshake was not captured.
    """
    if not (packet.flags & ACK and mine.syn_seen and other.syn_seen):
        return
    scaled = mine.scale is not None and other.scale is not None and not packet.flags & SYN
    edge = (packet.ack + (packet.window << (mine.scale or 0) if scaled else packet.window)) % 2**32
    if mine.edge is not None and after(mine.edge, (edge + (1 << (mine.scale or 0)) - 1) % 2**32):
        mine.wrong(packet, f"its window's right edge went back by {(mine.edge - edge) % 2**32}")
        return
    mine.edge = edge


def _timestamps(mine: Direction, other: Direction, packet: Packet) -> None:
    if packet.timestamps is None:
        if mine.tsval is not None and other.tsval is not None:
            mine.wrong(packet, "no timestamp, though both ends have agreed on them")
        return
    tsval, tsecr = packet.timestamps
    if mine.tsval is not None and after(mine.tsval, tsval):
        mine.wrong(packet, f"its timestamp went back from {mine.tsval} to {tsval}")
    mine.tsval = tsval
    if not packet.flags & ACK:
        return
    if mine.tsecr is not None and after(mine.tsecr, tsecr):
        mine.wrong(packet, f"the timestamp it echoes went back from {mine.tsecr} to {tsecr}")
    elif other.tsval is not None and after(tsecr, other.tsval):
        mine.wrong(packet, f"it echoes timestamp {tsecr}, and only {other.tsval} was sent")
    mine.tsecr = tsecr


def _marks(mine: Direction, packet: Packet, moved: int, fresh: bool) -> None:
    """TTL and IP flags; congestion marks only of fresh data, the kernel sends all else without."""
    if packet.flags & SYN:
        return
    values: dict[str, object] = {"TTL": packet.ttl, "DSCP": packet.dscp}
    if packet.df is not None:
        values["DF"] = packet.df
    if fresh and packet.size:
        values["ECN"] = bool(packet.ecn)
    for name, value in values.items():
        mine.marks.setdefault((name, moved), set()).add(value)


def _kept(marks: dict[tuple[str, int], set[object]]) -> list[tuple[str, list[set[object]]]]:
    """Those of which there is, from one move to the next, a value that was not there before."""
    found = []
    for name in sorted({name for name, _ in marks}):
        values = [marks[key] for key in sorted(key for key in marks if key[0] == name)]
        new = any(not later <= before for before, later in zip(values, values[1:], strict=False))
        if new or (len(values) == 1 and len(values[0]) > 1 and name != "DSCP"):
            found.append((name, values))
    return found


def _size(mine: Direction, other: Direction, packet: Packet, moved: int, fresh: bool) -> None:
    """A fresh segment that is not the last of a write (no PSH) is a full one, unless offload joined some."""
    if not fresh or not packet.size or packet.flags & (PSH | FIN | SYN):
        return
    if other.mss is not None and packet.size > other.mss:
        mine.joined += 1
        return
    mine.sizes.setdefault(moved, Counter())[packet.size] += 1


def _sizes_kept(sizes: dict[int, Counter[int]]) -> list[str]:
    """The largest full segment is the same after each move; where there were few nothing is said."""
    largest = [max(sizes[moved]) for moved in sorted(sizes) if sizes[moved].total() >= _ENOUGH]
    if len(set(largest)) < 2:
        return []
    return [f"segment size changed: {' -> '.join(map(str, largest))} bytes"]
