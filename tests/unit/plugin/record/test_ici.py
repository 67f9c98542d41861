"""An ICI as a value: what it shows of itself, and as what it is hashed."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from golden_icis import GOLDEN
from hypothesis import given
from strategies import icis

from tcpcp.record import codec
from tcpcp.record.ici import Ici, ReceiveQueue, SendQueue

SECRET = b"password: xyzzy"


@pytest.mark.parametrize(
    "value",
    [
        SendQueue(SECRET, SECRET),
        ReceiveQueue(SECRET),
        dataclasses.replace(
            GOLDEN["established"],
            send_queue=SendQueue(SECRET, SECRET),
            receive_queue=ReceiveQueue(SECRET),
        ),
    ],
)
def test_what_is_in_a_queue_is_not_shown(value: object) -> None:
    for shown in (repr(value), str(value), repr([value])):
        assert "xyzzy" not in shown
    assert "<15 bytes>" in repr(value)


def test_a_large_queue_has_a_short_name() -> None:
    ici = dataclasses.replace(GOLDEN["established"], receive_queue=ReceiveQueue(bytes(30_000_000)))
    assert len(repr(ici)) < 2000


def test_shutting_is_shown() -> None:
    assert repr(ReceiveQueue(b"", False, True)) == "ReceiveQueue(data=<0 bytes>, fin=False, shut=True)"


@given(icis())
def test_equal_icis_have_equal_hashes(ici: Ici) -> None:
    same = codec.loads(codec.dumps(ici))
    assert same == ici and hash(same) == hash(ici)
    shuffled = dataclasses.replace(ici, options=dict(reversed(ici.options.items())))
    assert len({ici, same, shuffled, copy.deepcopy(ici)}) == 1


def test_different_icis_are_told_apart() -> None:
    assert len(set(GOLDEN.values())) == len(GOLDEN)
