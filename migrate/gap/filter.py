"""A filter for packet sockets that lets through what may concern the connections of a migration. Pure.

Classic BPF, run by the kernel for each IP packet that arrives at the host, so that this program is not woken
for others. It lets through a little too much rather than too little: who reads the packets looks exactly.

The packet begins with its IP header (SOCK_DGRAM).

Source: Documentation/networking/filter.rst; net/core/filter.c; include/uapi/linux/filter.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection, Iterable

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

#: struct sock_filter: code, jump if true, jump if false, operand.
_INSTRUCTION = struct.Struct("=HBBI")
INSTRUCTION_BYTES = _INSTRUCTION.size

_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD = 0x30, 0x28, 0x20
_LOAD_BYTE_X, _LOAD_HALF_X = 0x50, 0x48
_X_IS_HEADER_LENGTH = 0xB1
_AND, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x54, 0x15, 0x45, 0x06
#: SKF_AD_OFF + SKF_AD_PKTTYPE: who the frame is for; + SKF_AD_IFINDEX: which interface it came by.
_PACKET_TYPE, _INTERFACE = 0xFFFFF000 + 4, 0xFFFFF000 + 8
_TO_THIS_HOST, _LOOPBACK = 0, 1
_TCP, _HOP_BY_HOP = 6, 0
_WHOLE = 0x7FFFFFFF
_FIN_SYN_RST_ACK, _SYN = 0x17, 0x02

#: A jump in classic BPF goes over at most 255 instructions. More values than this are not looked at.
MOST_VALUES = 200

Instruction = tuple[int, int, int, int]


def nothing() -> bytes:
    """A filter that no packet passes."""
    return _program([(_RETURN, 0, 0, 0)])


def for_ipv4(addresses: Iterable[Ip], ports: Collection[int] = (), *, syn_only: bool = False) -> bytes:
    """Unfragmented TCP from other hosts to this one, to one of *addresses* and one of *ports*; none means any.

    What comes by the loopback interface, as do the packets of :mod:`migrate.gap.inject`, does not pass.

    :param syn_only: only those that ask for a new connection.
    :return: an array of struct sock_filter.
    """
    words = [int(one) for one in addresses if one.version == 4]
    code = _to_this_host()
    code += _field(_LOAD_BYTE, 9, [_TCP])
    code += [(_LOAD_HALF, 0, 0, 6), (_JUMP_IF_SET, 0, 1, 0x3FFF), (_RETURN, 0, 0, 0)]
    code += _field(_LOAD_WORD, 16, words)
    code += [(_X_IS_HEADER_LENGTH, 0, 0, 0)]
    code += _field(_LOAD_HALF_X, 2, ports)
    code += _flags(_LOAD_BYTE_X, 13) if syn_only else []
    return _program([*code, (_RETURN, 0, 0, _WHOLE)])


def for_ipv6(addresses: Iterable[Ip], ports: Collection[int] = (), *, syn_only: bool = False) -> bytes:
    """As :func:`for_ipv4`. Of an address the last four bytes are compared; of a packet with a hop-by-hop
    header (a jumbogram) only the address is looked at.
    """
    words = [int(one) & 0xFFFFFFFF for one in addresses if one.version == 6]
    code = _to_this_host()
    code += _field(_LOAD_WORD, 36, words)
    if not syn_only:
        code += [(_LOAD_BYTE, 0, 0, 6), (_JUMP_IF_EQUAL, 0, 1, _HOP_BY_HOP), (_RETURN, 0, 0, _WHOLE)]
    code += _field(_LOAD_BYTE, 6, [_TCP])
    code += _field(_LOAD_HALF, 42, ports)
    code += _flags(_LOAD_BYTE, 53) if syn_only else []
    return _program([*code, (_RETURN, 0, 0, _WHOLE)])


def _to_this_host() -> list[Instruction]:
    not_loopback = [(_LOAD_WORD, 0, 0, _INTERFACE), (_JUMP_IF_EQUAL, 0, 1, _LOOPBACK), (_RETURN, 0, 0, 0)]
    return [*_field(_LOAD_BYTE, _PACKET_TYPE, [_TO_THIS_HOST]), *not_loopback]


def _flags(load: int, offset: int) -> list[Instruction]:
    return [
        (load, 0, 0, offset),
        (_AND, 0, 0, _FIN_SYN_RST_ACK),
        (_JUMP_IF_EQUAL, 1, 0, _SYN),
        (_RETURN, 0, 0, 0),
    ]


def _field(load: int, offset: int, values: Collection[int]) -> list[Instruction]:
    """Drop the packet unless the field is one of *values*; of no, or too many, every value is right."""
    wanted = sorted(set(values))
    if not wanted or len(wanted) > MOST_VALUES:
        return []
    compare = [(_JUMP_IF_EQUAL, len(wanted) - number, 0, value) for number, value in enumerate(wanted)]
    return [(load, 0, 0, offset), *compare, (_RETURN, 0, 0, 0)]


def _program(code: Iterable[Instruction]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*one) for one in code)
