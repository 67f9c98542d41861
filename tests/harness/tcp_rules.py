"""What a TCP connection may not do, seen in a capture: the one set of rules by which all tests judge packets.

Each rule holds for any endpoint that was never moved, and for both directions, so nobody has to know which
end was. A fault names the packet at which it shows.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.pcap import ACK, FIN, PSH, RST, SYN, End, Packet, distance, shown
from harness.streams import streams

_HALF = 2**31
_Way = tuple[End, End]
#: So many full segments must have been seen before their size means something.
_ENOUGH = 3
#: So many segments are needed to see one that was not late, of so many moments, ms apart: a burst is late as one.
_WARM_UP, _MOMENTS, _APART_MS = 12, 4, 10
#: Less than a migration's gap. Two of the lab's processors that forward at once differ by less,
#: also if one of them is so busy that it does not come to it for some milliseconds.
OVERTAKING_S = 0.02
#: So far ahead of time a clock of 1 ms may seem to be.
_SLACK_MS = 3.0


@dataclass(slots=True)
class Direction:
    """What one end has sent so far, and what is wrong with it.

    :ivar faults: sentences. :ivar at: numbers of the packets at which they show.
    :ivar sizes: full segments' payloads, by number of moves before them.
    :ivar lossless: all that is sent is seen, in its order: what is left out is a fault even if it comes later.
    :ivar stamped: it is known to use timestamps.
    :ivar fresh: its last packet had something new. :ivar up_to: the number after the last that was new.
    :ivar fin: the number of its FIN.
    :ivar acked: what it has acknowledged; :ivar acks: all such numbers.
    :ivar edges: right edges of its windows, all of them, as far as their unit is known.
    :ivar told: ends of its segments with something new, and what these acknowledged.
    :ivar heard: what of its own it must know to be acknowledged.
    :ivar shift: of its windows; None if it is not known. :ivar edge: the furthest right edge of them.
    :ivar edge_of_syn: it is a SYN's, which can be told more exactly than later ones.
    :ivar rounded: how far a later one was behind it, within the unit of windows.
    :ivar clock: the first TSval, and when it was seen. :ivar clock_ms: how much more TSval went on than time.
    :ivar ahead_ms: the most by which it did so at once. :ivar moments: the TSvals of them.
    """

    name: str
    lossless: bool = False
    stamped: bool = False
    faults: list[str] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    packets: int = 0
    data_bytes: int = 0
    retransmitted: int = 0
    joined: int = 0
    longest_silence_ms: float = 0.0
    silence_at_s: float = 0.0
    last_at_s: float | None = None
    syn_seen: bool = False
    scale: int | None = None
    mss: int | None = None
    first_seq: int | None = None
    up_to: int = 0
    fresh: bool = False
    fin: int | None = None
    acked: int | None = None
    acks: set[int] = field(default_factory=set)
    edges: set[int] = field(default_factory=set)
    told: deque[tuple[int, int]] = field(default_factory=deque)
    heard: int | None = None
    shift: int | None = None
    edge: int | None = None
    edge_of_syn: bool = False
    rounded: int = 0
    tsval: int | None = None
    tsecr: int | None = None
    clock: tuple[int, float] | None = None
    clock_ms: float = 0.0
    ahead_ms: float = 0.0
    moments: list[int] = field(default_factory=list)
    stream: bytearray = field(default_factory=bytearray)
    known: bytearray = field(default_factory=bytearray)
    marks: dict[tuple[str, int], set[object]] = field(default_factory=dict)
    sizes: dict[int, Counter[int]] = field(default_factory=dict)

    def wrong(self, packet: Packet, text: str) -> None:
        """Note a fault."""
        self.faults.append(f"packet {packet.number}: {text}")
        self.at.append(packet.number)


class Connection:
    """One connection, judged.

    :param packets: of :func:`harness.streams.streams`.
    :param moves: times (seconds since the epoch) at which an end moved; marks may be compared across them.
    :param lossless, stamped: of both directions.
    """

    def __init__(
        self,
        packets: Sequence[Packet],
        moves: Sequence[float] = (),
        *,
        lossless: bool = False,
        stamped: bool = False,
    ) -> None:
        self.packets = packets
        self.ends = (packets[0].sender, packets[0].receiver)
        self.sides = {end: Direction(shown(end), lossless, stamped) for end in self.ends}
        self._resets = {id(one) for one in resets(sorted(packets, key=_number))}
        for packet in packets:
            self._take(packet, sum(packet.at_s >= move for move in moves))
        for side in self.sides.values():
            _whole(side)

    def sent_by(self, end: End) -> list[Packet]:
        """One direction."""
        return [packet for packet in self.packets if packet.sender == end]

    def _take(self, packet: Packet, moved: int) -> None:
        """Judge *packet*, which is the next, after so many moves."""
        mine, other = self.sides[packet.sender], self.sides[packet.receiver]
        mine.packets += 1
        _silence(mine, packet)
        _agreed(mine, other, packet)
        if packet.flags & RST:
            if id(packet) in self._resets:
                reset(mine, packet)
            return
        of_numbers(mine, other, packet)
        window(mine, packet)
        timestamp(mine, other, packet)
        echo(mine, other, packet)
        _clock(mine, packet)
        _marks(mine, packet, moved)
        _size(mine, other, packet, moved)


def connections(
    packets: Iterable[Packet],
    moves: Sequence[float] = (),
    *,
    overtaking_s: float = 0.0,
    lossless: bool = False,
    stamped: bool = False,
) -> list[Connection]:
    """Those of *packets*, see :func:`harness.streams.streams`, judged."""
    return [
        Connection(one, moves, lossless=lossless, stamped=stamped) for one in streams(packets, overtaking_s)
    ]


def faults(judged: Iterable[Connection]) -> list[str]:
    """Of all of them, with who it was."""
    return [f"{side.name}: {fault}" for one in judged for side in one.sides.values() for fault in side.faults]


def around(one: Connection, name: str = "", before: int = 12, after: int = 6) -> str:
    """Its faults, with what was seen of it around the first of them, for whoever wants to know how it came."""
    seen = sorted(one.packets, key=_number)
    first = min((number for side in one.sides.values() for number in side.at), default=seen[-1].number)
    place = next(n for n, packet in enumerate(seen) if packet.number == first)
    return "\n    ".join([name, *faults([one]), *map(repr, seen[max(place - before, 0) : place + after])])


def _number(packet: Packet) -> int:
    return packet.number


def resets(packets: Iterable[Packet]) -> list[Packet]:
    """Nobody may reset anything that is not over, but answer what comes for a connection after its end.

    Where what acknowledges a FIN has overtaken what was sent just before, as from another processor, this finds no
    socket. Nor does a second one, where the FIN was said again, as by a loss probe: see
    tests/facts/test_after_the_end.py. What is overtaken behind the place of the capture is seen in its order there.

    :param packets: in the order in which they were seen.
    """
    fins: dict[_Way, int] = {}
    over: dict[_Way, float] = {}
    told: dict[_Way, list[tuple[int, float]]] = {}
    found = []
    for packet in packets:
        way, back = (packet.sender, packet.receiver), (packet.receiver, packet.sender)
        if packet.flags & RST:
            since = max(over[way], over[back]) if way in over and back in over else math.inf
            drawn = [ack for ack, at_s in told.get(back, ()) if at_s > since - OVERTAKING_S]
            if packet.flags & ACK or packet.seq not in drawn:
                found.append(packet)
            continue
        if packet.flags & SYN:
            for known in (fins, over, told):
                known.pop(way, None)
        if packet.flags & FIN:
            fins[way] = packet.end
        if packet.ack == fins.get(back) and back not in over:
            over[back] = packet.at_s
        else:
            told.setdefault(way, []).append((packet.ack, packet.at_s))
    return found


def reset(mine: Direction, packet: Packet) -> bool:
    """A reset is wrong, where it is none of those; its numbers say nothing. Whether *packet* is one."""
    if packet.flags & RST:
        mine.wrong(packet, "a reset")
    return bool(packet.flags & RST)


def _silence(mine: Direction, packet: Packet) -> None:
    if mine.last_at_s is not None and (silence_ms := 1000 * (packet.at_s - mine.last_at_s)) > (
        mine.longest_silence_ms
    ):
        mine.longest_silence_ms, mine.silence_at_s = silence_ms, mine.last_at_s
    mine.last_at_s = packet.at_s


def _agreed(mine: Direction, other: Direction, packet: Packet) -> None:
    """What a SYN says; windows are shifted if both do."""
    if not packet.flags & SYN:
        return
    mine.syn_seen, mine.scale, mine.mss = True, packet.scale, packet.mss
    if other.syn_seen:
        scaled = mine.scale is not None and other.scale is not None
        mine.shift, other.shift = (mine.scale or 0, other.scale or 0) if scaled else (0, 0)


def of_numbers(mine: Direction, other: Direction, packet: Packet) -> None:
    """All rules of sequence and acknowledgement numbers, and of what is sent under them."""
    if mine.first_seq is None:
        mine.first_seq = mine.up_to = packet.seq
    _hear(mine, other, packet)
    _sequence(mine, other, packet)
    _content(mine, packet)
    _end(mine, packet)
    _acknowledgement(mine, other, packet)


def _hear(mine: Direction, other: Direction, packet: Packet) -> None:
    """What it knows to be acknowledged: who acknowledges new octets knows the acknowledgement that came with them.

    Of other acknowledgements nobody can say whether they were lost; a migration loses some. What is sent again
    says more than what may have arrived before.
    """
    while packet.flags & ACK and other.told and distance(other.told[0][0], packet.ack) <= 0:
        mine.heard = other.told.popleft()[1]


def _sequence(mine: Direction, other: Direction, packet: Packet) -> None:
    """It goes on where the last one ended, or says again what was said. Counts retransmissions."""
    mine.fresh = False
    if mine.first_seq is not None and distance(packet.seq, mine.first_seq) < -1:
        mine.wrong(packet, f"sequence number {packet.seq} from before the connection's first")
        return
    ahead = distance(packet.seq, mine.up_to)
    if mine.lossless and ahead > 0:
        mine.wrong(packet, f"a gap of {ahead} before it")
    if not packet.octets and ahead < 0:
        _early(mine, other, packet)
    if distance(packet.end, mine.up_to) > 0:
        _grow(mine, packet.end)
        mine.fresh = packet.octets > 0
    elif packet.octets and not _is_probe(packet, other):
        mine.retransmitted += 1
    if mine.fresh and packet.flags & ACK:
        mine.told.append((packet.end, packet.ack))


def _early(mine: Direction, other: Direction, packet: Packet) -> None:
    """Without octets it may begin earlier only as a keepalive or window probe, or where a window has shrunk.

    A probe has the number before the oldest octet that is not acknowledged (RFC 9293 section 3.8.4;
    net/ipv4/tcp_output.c tcp_xmit_probe_skb()), so the next one is what was once acknowledged. What has shrunk a
    window behind what was sent would drop all after it: an acknowledgement has the number of its edge then
    (tcp_acceptable_seq()). Neither is behind what its sender must have heard.
    """
    following = (packet.seq + 1) % 2**32
    first = [packet.seq] if packet.seq in other.edges else []
    if following in other.acks or following == mine.first_seq:
        first.append(following)
    if not first:
        mine.wrong(packet, f"an empty segment whose sequence number went back to {packet.seq}")
    elif mine.heard is not None and all(distance(one, mine.heard) < 0 for one in first):
        mine.wrong(packet, f"a segment at {packet.seq}, and it knows that {mine.heard} is acknowledged")


def _is_probe(packet: Packet, other: Direction) -> bool:
    """A keepalive with one byte of what was acknowledged long ago."""
    return packet.size == 1 and other.acked is not None and packet.end == other.acked


def _grow(mine: Direction, end: int) -> None:
    assert mine.first_seq is not None
    mine.up_to = end
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
    end = start + packet.size
    seen, old = mine.known[start:end], mine.stream[start:end]
    if seen.count(0) < len(seen) and old != packet.payload:
        differs = [i for i, byte in enumerate(packet.payload) if seen[i] and old[i] != byte]
        if differs:
            mine.wrong(packet, f"other content than before at relative {start + differs[0]}")
    mine.stream[start:end] = packet.payload
    mine.known[start:end] = b"\1" * packet.size
    if packet.size:
        mine.data_bytes = max(mine.data_bytes, end)
    if packet.flags & FIN:
        mine.known[end] = 1


def _end(mine: Direction, packet: Packet) -> None:
    """A FIN is behind all that is sent, and always at the same place."""
    of_fin = bool(packet.flags & FIN)
    last = (packet.end - of_fin) % 2**32
    if of_fin and mine.fin is None:
        mine.fin, behind = last, distance(mine.up_to, packet.end)
    elif mine.fin is not None and packet.octets:
        behind = distance(last, mine.fin)
    else:
        return
    if behind > 0 or (of_fin and behind):
        mine.wrong(packet, "its FIN is not behind all that it sends")


def _acknowledgement(mine: Direction, other: Direction, packet: Packet) -> None:
    """It never goes back, and is of what was sent."""
    if not packet.flags & ACK:
        return
    if mine.acked is not None and distance(packet.ack, mine.acked) < 0:
        mine.wrong(packet, f"its acknowledgement went back from {mine.acked} to {packet.ack}")
        return
    if other.first_seq is not None and distance(packet.ack, other.up_to) > 0:
        mine.wrong(packet, f"it acknowledges {packet.ack}, of which only {other.up_to} was sent")
    mine.acked = packet.ack
    mine.acks.add(packet.ack)
    if mine.shift is not None or not packet.window:
        mine.edges.add(_edge(mine, packet))


def window(mine: Direction, packet: Packet) -> None:
    """The right edge never moves back, but for rounding to the window's unit (RFC 7323 section 2.4).

    Unknown where the handshake was not captured.
    """
    if not packet.flags & ACK or mine.shift is None:
        return
    of_syn, edge = bool(packet.flags & SYN), _edge(mine, packet)
    back = distance(mine.edge, edge) if mine.edge is not None else 0
    if back >= 1 << mine.shift:
        mine.wrong(packet, f"its window's right edge went back by {back}, the field is {packet.window}")
    elif back > 0 and not mine.edge_of_syn:
        mine.rounded = max(mine.rounded, back)
    else:
        mine.edge, mine.edge_of_syn = edge, of_syn


def _edge(mine: Direction, packet: Packet) -> int:
    """Of its window. Of SYNs they are never shifted, and an empty one is the same in any unit."""
    shift = 0 if packet.flags & SYN else mine.shift or 0
    return (packet.ack + (packet.window << shift)) % 2**32


def timestamp(mine: Direction, other: Direction, packet: Packet) -> None:
    """It never goes back, and is in every packet or in none."""
    tsval = packet.tsval
    if tsval is None:
        if mine.stamped or (mine.tsval is not None and other.tsval is not None):
            mine.wrong(packet, "no timestamp, though both ends have agreed on them")
        return
    if mine.tsval is not None and distance(tsval, mine.tsval) < 0:
        mine.wrong(packet, f"its timestamp went back from {mine.tsval} to {tsval}")
    mine.tsval = tsval


def echo(mine: Direction, other: Direction, packet: Packet) -> None:
    """The timestamp that it echoes never goes back, is there, and was sent."""
    tsecr = packet.tsecr
    if tsecr is None or not packet.flags & ACK:
        return
    if not tsecr and other.tsval:
        mine.wrong(packet, "it echoes no timestamp")
        return
    if mine.tsecr is not None and distance(tsecr, mine.tsecr) < 0:
        mine.wrong(packet, f"the timestamp it echoes went back from {mine.tsecr} to {tsecr}")
    elif other.tsval is not None and distance(tsecr, other.tsval) > 0:
        mine.wrong(packet, f"it echoes timestamp {tsecr}, and only {other.tsval} was sent")
    mine.tsecr = tsecr


def _clock(mine: Direction, packet: Packet) -> None:
    """TSval does not run ahead of time. Of clocks of 1 ms, as Linux's, or slower ones.

    A segment may reach the capture late, so a clock that goes on shows up as TSval minus time staying at or below
    its highest value so far.
    """
    tsval = packet.tsval
    if tsval is None:
        return
    if mine.clock is None:
        mine.clock = tsval, packet.at_s
    first, at_s = mine.clock
    now_ms = distance(tsval, first) - 1000 * (packet.at_s - at_s)
    ahead_ms = now_ms - mine.clock_ms
    mine.clock_ms = max(mine.clock_ms, now_ms)
    if not mine.moments or distance(tsval, mine.moments[-1]) >= _APART_MS:
        mine.moments.append(tsval)
    if mine.packets > _WARM_UP and len(mine.moments) > _MOMENTS:
        mine.ahead_ms = max(mine.ahead_ms, ahead_ms)
        if ahead_ms > _SLACK_MS:
            mine.wrong(packet, f"its timestamp is {ahead_ms:.1f} ms ahead of time")


def _marks(mine: Direction, packet: Packet, moved: int) -> None:
    """TTL and IP flags; congestion marks only of fresh data, the kernel sends all else without."""
    values: dict[str, object] = {"TTL": packet.ttl}
    if not packet.flags & SYN:
        values["DSCP"] = packet.dscp
        if packet.df is not None:
            values["DF"] = packet.df
        if mine.fresh and packet.size:
            values["ECN"] = bool(packet.ecn)
    for name, value in values.items():
        mine.marks.setdefault((name, moved), set()).add(value)


def _size(mine: Direction, other: Direction, packet: Packet, moved: int) -> None:
    """A fresh segment that is not the last of a write (no PSH) is a full one, unless offload joined some."""
    if not mine.fresh or not packet.size or packet.flags & (PSH | FIN | SYN):
        return
    if other.mss is not None and packet.size > other.mss:
        mine.joined += 1
        return
    mine.sizes.setdefault(moved, Counter())[packet.size] += 1


def _whole(side: Direction) -> None:
    """What only the whole shows: bytes that were left out, marks and sizes that a move has changed."""
    hole = side.known.find(0)
    if hole >= 0:
        missing = side.known.count(0)
        side.faults.append(f"{missing} bytes were never sent, the first at relative {hole}")
    for name, values in _changed(side.marks):
        each = " -> ".join(str(sorted(map(str, one))) for one in values)
        side.faults.append(f"{name} changed: {each}")
    side.faults += _sizes_kept(side.sizes)


def _changed(marks: dict[tuple[str, int], set[object]]) -> list[tuple[str, list[set[object]]]]:
    """Those of which there is, from one move to the next, a value that was not there before."""
    found = []
    for name in sorted({name for name, _ in marks}):
        values = [marks[key] for key in sorted(key for key in marks if key[0] == name)]
        new = any(not later <= before for before, later in zip(values, values[1:], strict=False))
        if new or (len(values) == 1 and len(values[0]) > 1 and name != "DSCP"):
            found.append((name, values))
    return found


def _sizes_kept(sizes: dict[int, Counter[int]]) -> list[str]:
    """The largest full segment is the same after each move; where there were few nothing is said."""
    largest = [max(sizes[moved]) for moved in sorted(sizes) if sizes[moved].total() >= _ENOUGH]
    if len(set(largest)) < 2:
        return []
    return [f"segment size changed: {' -> '.join(map(str, largest))} bytes"]
