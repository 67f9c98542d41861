"""Addresses as the library writes them, and the Internet checksum."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcp.record import addresses
from tcpcp.record.checksum import checksum, complement, total


@pytest.mark.parametrize(
    ("written", "meant"),
    [("::ffff:10.0.0.1", "10.0.0.1"), ("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("::10.0.0.1", "::a00:1")],
)
def test_an_address(written: str, meant: str) -> None:
    packed = ipaddress.ip_address(written).packed
    assert addresses.address(packed) == ipaddress.ip_address(meant)
    assert addresses.plain(packed) == ipaddress.ip_address(meant).packed


@pytest.mark.parametrize("packed", [b"", b"123", bytes(17), addresses.MAPPED])
def test_what_is_no_address(packed: bytes) -> None:
    with pytest.raises(ValueError):
        addresses.address(packed)


def by_words(data: bytes) -> int:
    """As RFC 1071 has it: the words added up, with the carry coming round."""
    data += b"\0" * (len(data) % 2)
    found = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return ~found & 0xFFFF


@given(st.binary(min_size=1, max_size=100).filter(any))
def test_a_checksum(data: bytes) -> None:
    assert checksum(data) == by_words(data)
    even = data + b"\0" * (len(data) % 2)
    assert total(even + checksum(data).to_bytes(2, "big")) == 0
    assert complement(total(data)) == checksum(data)


def test_of_rfc_1071() -> None:
    assert total(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
