"""The rules of captures on made-up packets: each finds what breaks it, and accepts what TCP may do.

Those that need a whole conversation are in test_peer_view.py.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Any

import pytest
from harness.pcap import ACK, FIN, RST, SYN, End, Packet, distance, of_ip
from harness.tcp_rules import around, connections, faults, resets

SERVICE, PEER = ("10.77.1.100", 80), ("10.77.2.1", 40000)
FIRST, PEERS_FIRST = 2**32 - 20, 5000
UNIT = 1 << 7


def stamps(tsval: int, tsecr: int) -> dict[int, bytes]:
    return {8: struct.pack("!II", tsval, tsecr)}


def made(ends: tuple[End, End], seq: int, ack: int, payload: bytes, flags: int, **more: Any) -> Packet:
    numbers = (seq % 2**32, ack % 2**32)
    return replace(Packet(0, 0.0, *ends, 64, 0, 0, True, *numbers, flags, 512, payload, len(payload)), **more)


def segment(seq: int, size: int, ack: int, flags: int = ACK, **more: Any) -> Packet:
    """Octets *seq* to *seq* + *size* of the service, counted from the first of each direction."""
    payload = bytes(number % 256 for number in range(seq, seq + size))
    return made((SERVICE, PEER), FIRST + seq, PEERS_FIRST + ack, payload, flags, **more)


def answer(seq: int, size: int, ack: int, flags: int = ACK, **more: Any) -> Packet:
    """The same of the peer, all of whose octets are 0."""
    return made((PEER, SERVICE), PEERS_FIRST + seq, FIRST + ack, bytes(size), flags, **more)


def judged(*packets: Packet, **how: Any) -> list[str]:
    """The faults, each without who it was and at which packet."""
    return [re.sub(r"^\S+: (packet \d+: )?", "", one) for one in faults(connections(packets, **how))]


#: The last ten octets acknowledge ten of the peer's, with which the peer acknowledged 30.
EXCHANGE = [
    segment(0, 30, 0),
    answer(0, 10, 30),
    segment(30, 30, 0),
    answer(10, 10, 60),
    segment(60, 40, 10),
    answer(20, 0, 100),
]
PROBE = segment(29, 0, 10)


def test_an_exchange() -> None:
    assert judged(*EXCHANGE, lossless=True) == []
    assert [distance(new, old) for new, old in ((3, 2**32 - 4), (2**32 - 4, 3), (5, 5))] == [7, -7, 0]


def test_a_probe_may_begin_before_the_octets_under_way() -> None:
    assert judged(*EXCHANGE, PROBE) == []


@pytest.mark.parametrize(
    ("probe", "fault"),
    [
        (segment(28, 0, 10), "sequence number went back"),
        (segment(0, 0, 10), "sequence number went back"),
        (segment(29, 0, 20), "it knows that"),  # it acknowledges the octets with which 60 were acknowledged
    ],
)
def test_a_probe_before_what_its_sender_knows_to_be_acknowledged(probe: Packet, fault: str) -> None:
    assert [fault in one for one in judged(*EXCHANGE, probe)] == [True]


def test_what_may_have_been_lost_is_not_known() -> None:
    """The peer's segment is sent again with a later acknowledgement; one without octets is never confirmed."""
    sent = [one for one in EXCHANGE if one.sender == SERVICE]
    again = [answer(0, 10, 30), answer(0, 10, 100), answer(10, 0, 100)]
    assert judged(*sent, *again, PROBE) == []


def test_a_probe_when_nothing_is_under_way() -> None:
    assert judged(*EXCHANGE, segment(99, 0, 20)) == []
    heard = [*EXCHANGE, answer(20, 10, 100)]
    assert "went back" in judged(*heard, segment(98, 0, 30))[0]
    assert "it knows that" in judged(*heard, segment(59, 0, 30))[0]


def test_a_probe_of_what_was_sent_before_the_capture() -> None:
    assert judged(*EXCHANGE[:1], segment(-1, 0, 0)) == []
    assert "before the connection's first" in judged(*EXCHANGE[:1], segment(-2, 0, 0))[0]


SHRUNK = [*EXCHANGE[:3], answer(10, 0, 30, window=0)]


def test_at_the_edge_of_a_window_that_has_shrunk() -> None:
    """The peer has taken 30 octets, 60 were sent, and it takes no more; a window's unit does not matter then."""
    assert judged(*SHRUNK, segment(30, 0, 10)) == judged(*SHRUNK, segment(29, 0, 10)) == []
    assert "went back" in judged(*SHRUNK, segment(40, 0, 10))[0]
    at_both = [*SHRUNK, answer(10, 10, 31, window=0), segment(60, 1, 20), answer(20, 10, 61)]
    assert judged(*at_both[:-1], segment(30, 0, 20)) == []  # before the 31st, and once the edge
    assert "it knows that" in judged(*SHRUNK, answer(10, 10, 60), segment(60, 1, 20), segment(30, 0, 20))[0]


@pytest.mark.parametrize(("scale", "edge"), [(0, 35), (2, 50)])
def test_at_the_edge_of_a_window_in_units(scale: int, edge: int) -> None:
    """That it shrinks is the peer's fault, and not that of who heeds it."""
    heard = [*handshake(scale), *SHRUNK[:3], answer(10, 0, 30, window=5)]
    for seq in range(30, 60):
        found = judged(*heard, segment(seq, 0, 10))
        assert any("whose sequence number went back" in one for one in found) == (seq != edge), seq


def test_a_gap() -> None:
    """Where all that is sent is seen it is a fault at once; elsewhere it may be filled."""
    late = [*EXCHANGE, segment(101, 5, 20)]
    filled = [*late, segment(100, 1, 20)]
    assert judged(*filled) == []
    assert judged(*filled, lossless=True) == ["a gap of 1 before it"]
    assert judged(*late) == ["1 bytes were never sent, the first at relative 100"]
    assert judged(*EXCHANGE, segment(101, 0, 20), lossless=True)[0] == "a gap of 1 before it"


def test_another_content() -> None:
    other = replace(segment(30, 30, 20), payload=bytes(30))
    assert judged(*EXCHANGE, other) == ["other content than before at relative 30"]


def test_what_is_sent_again() -> None:
    """Also half of it, and an end."""
    end, again = segment(100, 0, 20, ACK | FIN), [segment(60, 40, 20), segment(70, 5, 20)]
    packets = [*EXCHANGE, *again, end, end]
    (one,) = connections(packets, lossless=True)
    assert faults([one]) == []
    assert [side.retransmitted for side in one.sides.values()] == [3, 0]
    assert one.sent_by(SERVICE) == [packet for packet in packets if packet.sender == SERVICE]


@pytest.mark.parametrize(
    "packets",
    [
        (segment(100, 0, 20, ACK | FIN), segment(101, 1, 20)),
        (segment(100, 0, 20, ACK | FIN), segment(99, 2, 20)),
        (segment(100, 0, 20, ACK | FIN), segment(99, 0, 20, ACK | FIN)),
        (segment(100, 0, 20, ACK | FIN), segment(101, 0, 20, ACK | FIN)),
        (segment(60, 30, 20, ACK | FIN),),
    ],
)
def test_an_end_that_is_none(packets: tuple[Packet, ...]) -> None:
    assert "its FIN is not behind all that it sends" in judged(*EXCHANGE, *packets)


def test_acknowledgements() -> None:
    assert "went back" in judged(*EXCHANGE, answer(20, 0, 99))[0]
    assert "of which only" in judged(*EXCHANGE, answer(20, 0, 101))[0]
    assert judged(*EXCHANGE, answer(20, 0, 100)) == []


def test_resets() -> None:
    reset = segment(100, 0, 20, RST)
    assert resets([*EXCHANGE, reset]) == [reset]
    assert judged(*EXCHANGE, reset) == ["a reset"]


#: Both close, the service first; with the last one the peer's socket is gone. What that has overtaken may come yet.
OVER = [
    replace(one, at_s=float(n))
    for n, one in enumerate(
        [*EXCHANGE, segment(100, 0, 20, FIN | ACK), answer(20, 0, 101, FIN | ACK), segment(101, 0, 21)]
    )
]
OVERTAKEN, SECOND = segment(101, 0, 20), segment(101, 0, 21)
LATER, BEFORE_S = OVER[-1].at_s + 0.01, OVER[-1].at_s - 0.01


def drawn(seq: int, flags: int = RST) -> Packet:
    """A reset of the peer's, which has the number of what draws it."""
    return answer(seq, 0, 0, flags, at_s=LATER)


def seen(*packets: Packet) -> list[str]:
    """As :func:`judged`; each was seen after the one before it, and may have been sent before that."""
    return judged(*(replace(one, number=n) for n, one in enumerate(packets)), overtaking_s=0.02)


@pytest.mark.parametrize(("late", "seq"), [(OVERTAKEN, 20), (SECOND, 21)])
def test_a_reset_of_what_is_over(late: Packet, seq: int) -> None:
    late = replace(late, at_s=LATER)
    assert seen(*OVER, late, drawn(seq)) == []
    assert resets([*OVER, late, drawn(seq)]) == []
    for wrong in (
        (*OVER, drawn(seq)),
        (*OVER, drawn(seq), late),
        (*OVER, late, drawn(seq - 1)),
        (*OVER, late, drawn(seq, RST | ACK)),
        (*OVER[:-1], late, drawn(seq)),
        (*OVER[:-2], late, drawn(seq)),
        (*OVER, late, replace(drawn(seq), sender=SERVICE, receiver=PEER)),
    ):
        assert "a reset" in seen(*wrong)
        assert len(resets(wrong)) == 1


def test_what_is_overtaken_behind_the_capture_is_seen_before() -> None:
    for at_s, wrong in ((BEFORE_S, 0), (BEFORE_S - 0.1, 1)):
        packets = [*OVER[:-1], replace(OVERTAKEN, at_s=at_s), OVER[-1], drawn(20)]
        assert len(resets(packets)) == seen(*packets).count("a reset") == wrong


@pytest.mark.parametrize("number", (1, 2))
def test_what_is_over_may_begin_again(number: int) -> None:
    again = [answer(1000, 0, 0, SYN), segment(2000, 0, 1001, SYN | ACK), answer(1001, 0, 2001)]
    late = [replace(one, at_s=LATER) for one in (segment(2001, 0, 1001), OVERTAKEN, SECOND)]
    assert len(resets([*OVER, *again, *late, *[drawn(1001)] * number])) == number


def test_the_packets_around_a_fault_are_shown_as_they_were_seen() -> None:
    (one,) = connections([replace(one, number=n) for n, one in enumerate([*OVER, OVERTAKEN])])
    told = around(one, "a name", before=1).splitlines()
    assert told[0] == "a name" and "went back" in told[1]
    assert [re.sub(r"\D.*", "", line.strip(" <")) for line in told[2:]] == ["8", "9"]


def handshake(scale: int = 7) -> list[Packet]:
    """Windows of 65160 bytes, which is no whole number of units."""
    agreed = {3: bytes([scale])}
    return [
        answer(-1, 0, 0, SYN, window=65160, options=agreed),
        segment(-1, 0, 0, SYN | ACK, window=65160, options=agreed),
        answer(0, 0, 0),
    ]


def test_the_windows_right_edge() -> None:
    """It may seem to go back by less than a unit; how far is told, but for what a SYN says."""
    rounded = [*handshake(), segment(0, 1, 0, window=65160 // UNIT)]
    (one,) = connections(rounded)
    assert (faults([one]), one.sides[SERVICE].rounded) == ([], 0)
    more = [*rounded, answer(0, 30, 1), segment(1, 1, 30, window=65160 // UNIT - 1)]
    (one,) = connections(more)
    assert (faults([one]), one.sides[SERVICE].rounded) == ([], UNIT - 30)
    # It does not creep: the furthest counts.
    assert "went back by 226, the field is 507" in judged(*more, segment(2, 1, 30, window=507))[0]
    assert "went back" in judged(*handshake(), segment(0, 1, 0, window=65160 // UNIT - 1))[0]
    assert "went back by 1," in judged(*handshake(0), segment(0, 1, 0, window=65159))[0]


def test_a_window_of_unknown_unit_is_not_judged() -> None:
    assert judged(*EXCHANGE, segment(100, 1, 20, window=0)) == []


def ticking(count: int, *, late_ms: int = 0, jump_ms: int = 0) -> list[Packet]:
    """A segment each 10 ms, the last ones seen too late, or with a clock that has jumped."""
    return [
        segment(n, 1, 0, at_s=(10 * n + late) / 1000, options=stamps(500 + 10 * n + jump, 7))
        for n in range(count)
        for late, jump in [(late_ms, jump_ms) if n >= count - 3 else (0, 0)]
    ]


def test_the_clock_does_not_run_ahead_of_time() -> None:
    assert judged(*ticking(20)) == judged(*ticking(20, late_ms=50)) == judged(*ticking(20, jump_ms=3)) == []
    assert judged(*ticking(20, jump_ms=4)) == ["its timestamp is 4.0 ms ahead of time"]
    assert judged(*ticking(10, jump_ms=4)) == []  # of so few segments all may have been late before


def test_a_burst_is_late_as_a_whole() -> None:
    """The first segment was late, and so were all that were sent at once after a while."""
    times = [(500, 40)] + [(900, 40)] * 14 + [(940, 0)]
    late = [
        segment(n, 1, 0, at_s=(tsval + late_ms) / 1000, options=stamps(tsval, 7))
        for n, (tsval, late_ms) in enumerate(times)
    ]
    assert judged(*late) == []


def test_timestamps_that_are_known_to_be_used() -> None:
    without = replace(ticking(20)[-1], options={})
    assert judged(*ticking(19), without) == []
    assert ["no timestamp" in one for one in judged(*ticking(19), without, stamped=True)] == [True]
    assert len(judged(*EXCHANGE, stamped=True)) == len(EXCHANGE)


@pytest.mark.parametrize(
    ("tsecr", "fault"), [(0, "echoes no timestamp"), (699, "went back"), (701, "only 700 was sent")]
)
def test_the_echo(tsecr: int, fault: str) -> None:
    before = [answer(0, 1, 0, options=stamps(700, 500)), segment(0, 1, 1, options=stamps(501, 700))]
    assert judged(*before) == []
    assert fault in judged(*before, segment(1, 1, 1, options=stamps(502, tsecr)))[0]


def test_the_number_of_hops_is_that_of_the_syn() -> None:
    fewer = [
        replace(one, ttl=63) if one.sender == SERVICE and one.flags & SYN else one for one in handshake()
    ]
    assert judged(*fewer, segment(0, 1, 0)) == ["TTL changed: ['63', '64']"]


def overtaken(after_ms: float) -> list[Packet]:
    """The second segment is seen so much after the third, and after what the peer says to the first."""
    numbers = [segment(10 * n, 10, 0, options=stamps(500 + n, 7), at_s=1.0) for n in range(3)]
    late = replace(numbers[1], at_s=1 + after_ms / 1000)
    return [numbers[0], numbers[2], answer(0, 0, 10, options=stamps(7, 500), at_s=1.0), late]


def test_segments_that_have_overtaken_each_other_are_put_in_order() -> None:
    """Only where that is known to happen, and only if there is not much time between them."""
    for after_ms, overtaking_s in ((1.9, 0.0), (2.1, 0.002)):
        found = judged(*overtaken(after_ms), lossless=True, overtaking_s=overtaking_s)
        assert found == ["a gap of 10 before it", "its timestamp went back from 502 to 501"]
    (one,) = connections(overtaken(1.9), lossless=True, overtaking_s=0.002)
    assert faults([one]) == []
    assert [packet.tsval for packet in one.packets] == [500, 501, 502, 7]


@pytest.mark.parametrize(
    "later",
    [
        {"options": stamps(501, 7)},
        {"ack": PEERS_FIRST + 1},
        {"options": stamps(500, 8)},
        {"seq": FIRST + 10},
        {"payload": b"x", "size": 1},
        {"window": 513},
    ],
)
def test_what_says_that_a_segment_was_sent_before(later: dict[str, Any]) -> None:
    first = segment(9, 0, 0, options=stamps(500, 7))
    second = replace(first, **later)
    for seen in ([first, second], [second, first]):
        assert connections(seen, overtaking_s=0.002)[0].packets == [first, second]


def test_an_acknowledgement_that_the_answer_has_overtaken() -> None:
    """Both were sent at once: nothing but the octets says which was first, and without order it would go back."""
    said = answer(0, 10, 0, options=stamps(7, 500), at_s=1.0)
    acknowledged = segment(0, 0, 10, options=stamps(501, 7), at_s=1.0001)
    answered = segment(0, 10, 10, options=stamps(501, 7), at_s=1.0001)
    assert judged(said, acknowledged, answered, lossless=True) == []
    assert "went back" in judged(said, answered, acknowledged, lossless=True)[0]
    assert judged(said, answered, acknowledged, lossless=True, overtaking_s=0.02) == []


def test_what_a_syn_says_is_not_compared() -> None:
    """It acknowledges nothing, and this 0 is ahead of the numbers of its sender's other segments here."""
    packets = [replace(one, ack=0) if not one.flags & ACK else one for one in handshake()]
    assert connections(packets, overtaking_s=0.002)[0].packets == packets


def test_what_is_no_tcp() -> None:
    udp = struct.pack("!BBHHHBBH8x", 0x45, 0, 28, 7, 0, 64, 17, 0) + bytes(8)
    assert of_ip(0x0800, udp, 1, 0.0) is None
    assert of_ip(0x0806, udp, 1, 0.0) is None
