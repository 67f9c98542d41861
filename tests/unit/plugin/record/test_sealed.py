"""Authenticated ICIs: with the key they come back, without it nothing is parsed."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from golden_icis import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from strategies import icis

from tcpcp import Ici, dumps, dumps_sealed, loads, loads_sealed
from tcpcp.errors import CodecError
from tcpcp.record import codec, sealed

KEY = bytes(range(32))
PLAIN = GOLDEN["established"]


@given(icis(), st.binary(min_size=16, max_size=100))
def test_round_trip(ici: Ici, key: bytes) -> None:
    assert loads_sealed(dumps_sealed(ici, key), key) == ici


def test_it_is_hmac_sha256() -> None:
    data = dumps_sealed(PLAIN, KEY)
    magic, tag, record = data[:13], data[13:45], data[45:]
    assert (magic, record) == (sealed.MAGIC, dumps(PLAIN))
    assert tag == hmac.new(KEY, magic + record, hashlib.sha256).digest()


@given(st.data())
def test_a_changed_bit_is_refused_before_anything_is_parsed(data: st.DataObject) -> None:
    whole = bytearray(dumps_sealed(PLAIN, KEY))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    parsed: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "loads", parsed.append)
        with pytest.raises(CodecError):
            loads_sealed(whole, KEY)
    assert parsed == []


def test_another_key() -> None:
    with pytest.raises(CodecError, match="another key"):
        loads_sealed(dumps_sealed(PLAIN, KEY), KEY[::-1])


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(CodecError):
        loads_sealed(data, KEY)


def test_sealed_and_plain_are_not_mixed_up() -> None:
    with pytest.raises(CodecError, match="expected a sealed"):
        loads_sealed(dumps(PLAIN), KEY)
    with pytest.raises(CodecError, match="offset 0"):
        loads(dumps_sealed(PLAIN, KEY))


@pytest.mark.parametrize("key", [b"", b"secret", bytes(15)])
def test_a_short_key(key: bytes) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        dumps_sealed(PLAIN, key)
    with pytest.raises(ValueError, match="at least 16"):
        loads_sealed(dumps_sealed(PLAIN, KEY), key)
