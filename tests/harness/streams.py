"""Which packets of a capture are of one connection, in the order in which they were sent."""

from __future__ import annotations

from collections.abc import Iterable

from harness.pcap import RST, SYN, End, Packet, distance


def streams(packets: Iterable[Packet], overtaking_s: float = 0.0) -> list[list[Packet]]:
    """The packets of each connection. A SYN with another number begins a new one on the same ports.

    :param overtaking_s: what was seen so much earlier may have overtaken it, for what two processors forward at
        once is not kept in order. That is put right within each direction, as far as the packets say.
    """
    current: dict[frozenset[End], list[Packet]] = {}
    found = []
    for packet in packets:
        key = frozenset((packet.sender, packet.receiver))
        if key not in current or _begins_again(current[key], packet):
            current[key] = []
            found.append(current[key])
        current[key].insert(_place(current[key], packet, overtaking_s), packet)
    return found


def _begins_again(stream: list[Packet], packet: Packet) -> bool:
    """Whether it is a SYN with another number than that with which its sender has begun."""
    if not packet.flags & SYN:
        return False
    return packet.seq != next((one.seq for one in stream if one.sender == packet.sender), packet.seq)


def _place(stream: list[Packet], packet: Packet, overtaking_s: float) -> int:
    """Where it belongs: before those of the same sender that have overtaken it."""
    place = len(stream)
    for at in range(len(stream) - 1, -1, -1) if overtaking_s else ():
        one = stream[at]
        if one.sender != packet.sender:
            continue
        if packet.at_s - one.at_s >= overtaking_s or not _earlier(packet, one):
            break
        place = at
    return place


def _earlier(one: Packet, other: Packet) -> bool:
    """Whether *one* was sent before *other*, as far as they say."""
    if (one.flags | other.flags) & RST:  # whose numbers are those of what it answers
        return False
    if (one.flags | other.flags) & SYN:  # whose acknowledgement number says nothing
        return bool(one.flags & ~other.flags & SYN)
    ahead = (
        distance(one.tsval or 0, other.tsval or 0),
        distance(one.ack, other.ack),
        distance(one.tsecr or 0, other.tsecr or 0),
        distance(one.seq, other.seq),
        # What is behind octets has their end for its number.
        bool(one.octets) - bool(other.octets),
        one.window - other.window,
    )
    return next((step < 0 for step in ahead if step), False)
