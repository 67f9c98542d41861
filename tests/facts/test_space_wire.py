"""What judges the wire of a case of the space, on made-up packets: each rule finds what breaks it."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from harness.pcap import ACK, FIN, RST, SYN, Packet
from space_wire import Side, faults, kind_of

HERE, THERE = ("10.0.0.1", 80), ("10.0.0.2", 40000)
WROTE = bytes(range(20))


def stamps(tsval: int, tsecr: int) -> dict[int, bytes]:
    return {8: struct.pack("!II", tsval, tsecr)}


def packet(ours: bool, at: int, size: int, ack: int, flags: int = ACK) -> Packet:
    """Octets of what either wrote, from *at* on; both begin at 1000."""
    ends = (HERE, THERE) if ours else (THERE, HERE)
    payload = WROTE[at : at + size]
    numbers = (1000 + at, 1000 + ack, flags, 100)
    return Packet(1, 0.0, *ends, 64, 0, 0, True, *numbers, payload, size, stamps(50, 60))


GOOD = [
    packet(True, -1, 0, 0, SYN | ACK),
    packet(True, 0, 10, 0),
    packet(False, 0, 10, 10),
    packet(True, 10, 10, 10),
    packet(True, 10, 10, 10),
    packet(False, 10, 10, 20, ACK | FIN),
    packet(True, 20, 0, 21, ACK | FIN),
    packet(False, 21, 0, 21),
    packet(True, 21, 0, 21, RST),
]
#: The second packet with something new from here, and one like it from there.
OURS, THEIRS = 3, 5


def judged(packets: list[Packet]) -> tuple[list[str], Side]:
    sides = {HERE: Side(1000, WROTE, 2, 10, True), THERE: Side(1000, WROTE, 2, 10, False)}
    return list(faults(packets, sides, True)), sides[HERE]


def test_what_either_may_do() -> None:
    """Say again what may be lost, and reset what comes after the end."""
    found, here = judged(GOOD)
    assert (found, here.again, here.late) == ([], 1, 1)


@pytest.mark.parametrize(
    ("place", "fields", "fault"),
    [
        (OURS, {"flags": RST}, "here: packet N: a reset"),
        (OURS, {"ack": 999}, "here: packet N: its acknowledgement went back from N to N"),
        (THEIRS, {"ack": 999}, "there: packet N: its acknowledgement went back from N to N"),
        (THEIRS, {"ack": 1021}, "there: packet N: it acknowledges N, of which only N was sent"),
        (OURS, {"window": 90}, "here: packet N: its window's right edge went back by N, the field is N"),
        (OURS, {"options": stamps(49, 60)}, "here: packet N: its timestamp went back from N to N"),
        (OURS, {"options": stamps(51, 59)}, "here: packet N: the timestamp it echoes went back from N to N"),
        (OURS, {"options": {}}, "here: packet N: timestamps None, agreed: True"),
        (OURS, {"seq": 995, "payload": b"", "size": 0}, "here: packet N: sequence number N from before"),
        (THEIRS, {"size": 11, "payload": bytes(11)}, "there: packet N: N bytes, at most N were agreed"),
        (OURS, {"payload": bytes(10)}, "here: packet N: bytes that were not written at N"),
        (OURS, {"flags": ACK | FIN, "size": 5, "payload": WROTE[10:15]}, "here: packet N: a FIN at N of N"),
    ],
)
def test_each_rule_finds_its_fault(place: int, fields: dict[str, object], fault: str) -> None:
    changed = replace(GOOD[place], **fields)
    found, _ = judged([*GOOD[:place], changed])
    assert any(kind_of(one).startswith(fault) for one in found), found


@pytest.mark.parametrize("fields", [{"window": 1}, {"options": stamps(49, 60)}])
def test_the_peers_windows_and_timestamps_may_have_come_late(fields: dict[str, object]) -> None:
    assert judged([*GOOD[:THEIRS], replace(GOOD[THEIRS], **fields)])[0] == []


def test_the_same_again_is_told_once() -> None:
    found, _ = judged([*GOOD[:3], *[replace(GOOD[1], flags=RST)] * 3])
    assert found == ["here: packet 1: a reset (and 2 like it)"]


#: The peer has taken ten octets, and no more; it speaks, and is answered.
SHUT = [
    GOOD[0],
    packet(False, -1, 0, 0, SYN),
    replace(packet(True, 0, 10, 0), options=stamps(50, 60)),
    replace(packet(False, 0, 10, 10), options=stamps(66, 50)),
    replace(packet(True, 10, 0, 10), options=stamps(55, 66)),
]
ASKS = replace(packet(True, 9, 0, 10), options=stamps(54, 60))


def test_what_asks_may_come_behind_an_answer_of_the_same_moment() -> None:
    """It is behind that alone, and nothing else may be behind; nor what comes after it behind the answer."""
    assert judged([*SHUT, ASKS])[0] == []
    for wrong in (
        [*SHUT, replace(ASKS, options=stamps(49, 60))],
        [*SHUT, replace(ASKS, options=stamps(54, 59))],
        [*SHUT, replace(SHUT[-1], options=stamps(54, 60))],
        [*SHUT, ASKS, replace(SHUT[-1], options=stamps(54, 66))],
        [*SHUT, replace(SHUT[-1], options=stamps(56, 66)), ASKS],
    ):
        assert any("went back" in one for one in judged(wrong)[0])
