"""The judge of captures finds what is wrong in made-up packets, and accepts what TCP may do."""

from __future__ import annotations

import pytest
from harness.captures import ACK, FIN, Packet, assert_sequence_never_back

FIRST, PEERS_FIRST = 2**32 - 20, 5000


def segment(seq: int, size: int, ack: int, flags: int = ACK) -> Packet:
    """Octets *seq* to *seq* + *size*, counted from the first of each direction."""
    payload = bytes(number % 256 for number in range(seq, seq + size))
    return Packet(
        0, 0.0, "10.77.1.100.80", (FIRST + seq) % 2**32, PEERS_FIRST + ack, payload, flags, None, None, 64
    )  # fmt: skip


def answer(seq: int, size: int, ack: int) -> Packet:
    number = (FIRST + ack) % 2**32
    return segment(0, 0, 0)._replace(seq=PEERS_FIRST + seq, ack=number, payload=bytes(size))


SENT = [segment(0, 30, 0), segment(30, 30, 0), segment(60, 40, 10)]
#: With its first ten octets, which SENT acknowledges, the peer says that it has 30.
ANSWERS = [answer(0, 10, 30), answer(10, 10, 60), answer(20, 0, 100)]
PROBE = segment(29, 0, 10)


def test_a_probe_may_begin_before_the_octets_under_way() -> None:
    stream = assert_sequence_never_back([*SENT, PROBE], ANSWERS)
    assert stream == bytes(range(100))


@pytest.mark.parametrize(
    "probe",
    [
        segment(28, 0, 10),
        segment(29, 0, 20),  # it acknowledges the octets with which 60 were acknowledged
        segment(0, 0, 10),
    ],
)
def test_a_probe_before_what_its_sender_knows_to_be_acknowledged(probe: Packet) -> None:
    with pytest.raises(AssertionError, match="back by"):
        assert_sequence_never_back([*SENT, probe], ANSWERS)


def test_what_may_have_been_lost_is_not_known() -> None:
    """The peer's segment is sent again with a later acknowledgement; one without octets is never confirmed."""
    again = [answer(0, 10, 30), answer(0, 10, 100), answer(10, 0, 100)]
    assert_sequence_never_back([*SENT, PROBE], again)


def test_a_probe_when_nothing_is_under_way() -> None:
    assert_sequence_never_back([*SENT, segment(99, 0, 20)], ANSWERS)
    with pytest.raises(AssertionError, match="back by 2"):
        assert_sequence_never_back([*SENT, segment(98, 0, 30)], [*ANSWERS, answer(20, 10, 100)])


def test_a_gap_and_another_content() -> None:
    with pytest.raises(AssertionError, match="a gap of 1"):
        assert_sequence_never_back([*SENT, segment(101, 5, 10)], ANSWERS)
    other = segment(30, 30, 10)._replace(payload=bytes(30))
    with pytest.raises(AssertionError, match="something else"):
        assert_sequence_never_back([*SENT, other], ANSWERS)


def test_an_end_that_is_sent_again() -> None:
    assert_sequence_never_back(
        [*SENT, segment(100, 0, 10, ACK | FIN), segment(100, 0, 20, ACK | FIN)], ANSWERS
    )
