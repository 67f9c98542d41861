"""Sequence numbers: the laws of RFC 9293 section 3.4, and the values at which they are usually got wrong."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import u32

from tcpcp.record import seq

HALF = 2**31


@given(u32, st.integers(-(2**33), 2**33))
def test_adding_and_taking_away_gives_the_same(start: int, octets: int) -> None:
    assert seq.add(seq.add(start, octets), -octets) == start


@given(u32, st.integers(-HALF, HALF - 1))
def test_diff_undoes_add(start: int, octets: int) -> None:
    assert seq.diff(seq.add(start, octets), start) == octets


@given(u32, u32)
def test_of_two_one_is_first(a: int, b: int) -> None:
    assume(seq.diff(a, b) != -HALF)
    assert [seq.before(a, b), a == b, seq.before(b, a)].count(True) == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0, 1, True),
        (1, 0, False),
        (7, 7, False),
        (2**32 - 1, 0, True),
        (0, 2**32 - 1, False),
        (0, HALF - 1, True),
    ],
)
def test_before_at_the_wrap(first: int, second: int, expected: bool) -> None:
    assert seq.before(first, second) is expected


def test_half_way_round_is_as_in_the_kernel() -> None:
    """(__s32)(seq1 - seq2) < 0: both come before the other."""
    assert seq.diff(HALF, 0) == -HALF
    assert seq.before(0, HALF)
    assert seq.before(HALF, 0)
