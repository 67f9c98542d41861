"""Addresses as this library writes them: an IPv4-mapped IPv6 address as the IPv4 address that it means. Pure.

Source: RFC 4291 section 2.5.5.2.
"""

from __future__ import annotations

import ipaddress
import socket

#: What precedes the IPv4 address.
MAPPED = bytes(10) + b"\xff\xff"


def plain(packed: bytes) -> bytes:
    """*packed*, 4 or 16 bytes, without that."""
    return packed[len(MAPPED) :] if len(packed) == 16 and packed.startswith(MAPPED) else packed


def in_family(packed: bytes, family: int) -> bytes:
    """*packed* as a socket of *family* has it: an IPv4 address with that, if it is one of IPv6."""
    return MAPPED + packed if family == socket.AF_INET6 and len(packed) == 4 else packed


def address(packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of 4 or 16 bytes. :raises ValueError: there are more or fewer."""
    return ipaddress.ip_address(plain(packed))
