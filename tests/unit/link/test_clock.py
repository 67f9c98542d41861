"""The other host's clock: estimates against a true offset, over every delay; hostile stamps; a real link."""

from __future__ import annotations

import os
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.link.clock import Clocks, Offset, offset
from migrate.link.link import Link
from migrate.link.stream import FdStream
from migrate.pb.session_pb2 import Hello, PhaseTime, Prepared, Stamp
from migrate.report.interval import MAX_PHASES, Interval, of_destination

times = st.integers(0, 10**15)
delays = st.integers(0, 10**10)
anything = st.integers(0, 2**64 - 1)


@given(sent=times, ahead=st.integers(-(10**14), 10**14), there=delays, work=delays, back=delays)
def test_the_offset_is_wrong_by_no_more_than_it_says(
    sent: int, ahead: int, there: int, work: int, back: int
) -> None:
    received = sent + there + ahead
    found = offset(sent, received, received + work, sent + there + work + back)
    assert found is not None
    assert abs(found.ns - ahead) <= found.uncertainty_ns
    assert found.uncertainty_ns == (there + back + 1) // 2


@given(st.lists(st.tuples(delays, delays, delays), min_size=1, max_size=20), st.integers(10**12, 10**14))
def test_the_shortest_round_trip_wins(exchanges: list[tuple[int, int, int]], ahead: int) -> None:
    now = [1]
    ours, theirs = Clocks(lambda: now[0]), Clocks(lambda: now[0] + ahead)
    for there, work, back in exchanges:
        request = ours.stamp()
        now[0] += there
        theirs.take(request, theirs.now_ns())
        now[0] += work
        answer = theirs.stamp()
        now[0] += back
        ours.take(answer, now[0])
        now[0] += 1
    assert ours.offset is not None
    assert ours.offset.uncertainty_ns == (min(there + back for there, _, back in exchanges) + 1) // 2
    assert abs(ours.offset.ns - ahead) <= ours.offset.uncertainty_ns


@given(st.lists(st.builds(Stamp, sent_ns=anything, answered_ns=anything, received_ns=anything), max_size=5))
def test_whatever_comes_as_a_stamp_does_no_harm(stamps: list[Stamp]) -> None:
    clocks = Clocks(lambda: 1000)
    for stamp in stamps:
        clocks.take(stamp, 2000)
    assert clocks.offset is None or 0 <= clocks.offset.uncertainty_ns <= 500
    assert clocks.stamp().sent_ns == 1000


@pytest.mark.parametrize(
    "answer",
    [
        Stamp(),
        Stamp(sent_ns=5),
        Stamp(sent_ns=5, received_ns=4, answered_ns=99),  # before there was a link
        Stamp(sent_ns=5, received_ns=4, answered_ns=201),  # of a time to come
        Stamp(sent_ns=5, received_ns=6, answered_ns=150),  # answered before it was received
        Stamp(sent_ns=500, received_ns=4, answered_ns=150),  # took longer than the round trip
    ],
)
def test_a_stamp_that_contradicts_itself_is_passed_over(answer: Stamp) -> None:
    clocks = Clocks(lambda: 100)
    clocks.take(answer, 200)
    assert clocks.offset is None


def test_two_ends_of_a_link_find_how_far_their_clocks_are_apart() -> None:
    ahead = 10**15
    one, other = socket.socketpair()
    here = Link(FdStream(fd := one.detach(), os.dup(fd)))
    there = Link(
        FdStream(fd := other.detach(), os.dup(fd)), role="origin", now_ns=lambda: time.monotonic_ns() + ahead
    )
    try:
        for _ in range(3):
            here.send(Hello())
            there.expect(Hello, timeout_s=5)
            there.send(Prepared())
            here.expect(Prepared, timeout_s=5)
        found, back = here.clocks.offset, there.clocks.offset
    finally:
        here.close()
        there.close()
    assert found is not None and back is not None
    assert abs(found.ns - ahead) <= found.uncertainty_ns < 10**9
    assert abs(back.ns + ahead) <= back.uncertainty_ns < 10**9


# --- phases on our clock ----------------------------------------------------------------------------------


def test_phases_are_put_on_our_clock() -> None:
    said = [PhaseTime(name="build", start_ns=7_020_000_000, duration_ns=30_000_000)]
    found = of_destination(said, Offset(5_000_000_000, 1000), 2_000_000_000, 3_000_000_000)
    assert found == [Interval("destination", "build", 20.0, 30.0)]
    assert found[0].end_ms == 50.0


@given(
    st.lists(st.builds(PhaseTime, name=st.text(max_size=40), start_ns=anything, duration_ns=anything)),
    st.builds(Offset, st.integers(-(2**64), 2**64), st.integers(0, 10**9)),
)
def test_whatever_comes_as_a_phase_stays_within_the_migration(said: list[PhaseTime], ahead: Offset) -> None:
    for one in of_destination(said, ahead, 10**9, 2 * 10**9):
        assert -1001 <= one.start_ms <= one.end_ms <= 2001 + 1
        assert one.name.isascii() and len(one.name) <= 24


def test_nonsense_is_left_out() -> None:
    fine = PhaseTime(name="build", start_ns=100, duration_ns=1)
    nonsense = [
        PhaseTime(name="<script>", start_ns=100, duration_ns=1),
        PhaseTime(name="", start_ns=100, duration_ns=1),
        PhaseTime(name="late", start_ns=10**9, duration_ns=1),
        PhaseTime(name="long", start_ns=100, duration_ns=2**64 - 1),
    ]
    assert len(of_destination([*nonsense, fine], Offset(0, 0), 0, 1000)) == 1
    assert len(of_destination([fine] * 1000, Offset(0, 0), 0, 1000)) == MAX_PHASES
    assert of_destination([fine], None, 0, 1000) == []
