"""The Internet checksum, of IPv4 headers, TCP segments and ICMPv6. Pure. Source: RFC 1071.

To add words of 16 bits with the carry coming round is to take the remainder by 65535, since 65536 is 1 then: one
long division does it, some 20 times faster in Python than adding up words.
"""

from __future__ import annotations


def total(data: bytes) -> int:
    """The sum of the words in *data*, with 0 for 0xFFFF; an odd number of bytes has one of 0 behind it."""
    value = int.from_bytes(data, "big") % 0xFFFF
    return value * 256 % 0xFFFF if len(data) % 2 else value


def complement(value: int) -> int:
    """What makes the sum *value* 0, with 0 for 0xFFFF, which means the same where not all bytes are 0."""
    return -value % 0xFFFF


def checksum(data: bytes) -> int:
    """The checksum of *data*, of which not all bytes are 0."""
    return complement(total(data))
