"""Where the running kernel keeps a member of a struct: its BTF, also of members within members. Pure.

`bpf` has what a struct of operations needs; here it is where to find, from a pointer on, what one looks for.

Source: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tcpcp.errors import KernelError

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _ENUM64 = 1, 2, 3, 4, 5, 6, 19
#: typedef, volatile, const, restrict, a tag: another name for what it refers to.
_NAMES_ANOTHER = frozenset({8, 9, 10, 11, 18})
#: Kind -> 32-bit words behind the first three of a type: fixed, and for each of its members.
_BEHIND = {
    _INT: (1, 0),
    _ARRAY: (3, 0),
    _STRUCT: (0, 3),
    _UNION: (0, 3),
    _ENUM: (0, 2),
    13: (0, 2),
    14: (1, 0),
}
_BEHIND |= {15: (0, 3), 17: (1, 0), _ENUM64: (0, 3)}
_STEPS = [_BEHIND.get(kind, (0, 0)) for kind in range(32)]
_POINTER_BYTES = 8
#: A type refers to types, and a member is within members; no kernel's go as deep.
_DEEPEST = 32


class Extent(NamedTuple):
    """Bytes from the begin of a struct on; of a bit field all that it touches."""

    offset: int
    size: int


def _walk(words: memoryview, wanted: Mapping[int, str]) -> tuple[list[int], dict[int, int]]:
    """Where each type begins, the first of which has the number 1; and the numbers of the structs *wanted*.

    There are 130,000: 50 ms. No function is called in the loop for that.
    """
    places, structs, place, end = [0], {}, 0, len(words)
    while place < end:
        info = words[place + 1]
        kind = info >> 24 & 31
        if kind == _STRUCT and words[place] in wanted:
            structs[words[place]] = len(places)
        places.append(place)
        fixed, each = _STEPS[kind]
        place += 3 + fixed + each * (info & 0xFFFF)
    return places, structs


class _Member(NamedTuple):
    name: bytes
    type: int
    first_bit: int
    bits: int


class Types:
    """The types in *data*.

    :param structs: names of those that :meth:`extent` will be asked for.
    :raises KernelError: EBADMSG, it is malformed.
    """

    def __init__(self, data: bytes, structs: Iterable[str]) -> None:
        try:
            header, types, length, strings, size = struct.unpack_from("=4x5I", data)
            self._strings = data[header + strings : header + strings + size]
            self._words = memoryview(data)[header + types : header + types + length].cast("I")
            wanted = {self._strings.find(b"\0" + name.encode() + b"\0") + 1: name for name in structs}
            wanted.pop(0, None)  # there is none of that name
            self._places, found = _walk(self._words, wanted)
        except (struct.error, TypeError, ValueError, IndexError) as exc:
            raise KernelError("BTF", errno.EBADMSG) from exc
        self._structs = {wanted[name]: number for name, number in found.items()}

    def extent(self, path: str) -> Extent:
        """Of a member, ``struct.member`` or ``struct.member.member``; those without a name are looked through.

        :raises KernelError: ENOENT, this kernel has none such.
        """
        outer, *names = path.split(".")
        try:
            number, base = self._structs[outer], 0
            extent = Extent(0, 0)
            for name in names:
                found, bit = self._find(number, name.encode(), 0)
                extent = self._bytes(found, bit)
                number, base = found.type, base + extent.offset
        except (LookupError, ValueError):
            raise KernelError(f"BTF of member {path}", errno.ENOENT) from None
        return Extent(base, extent.size)

    def _find(self, number: int, name: bytes, depth: int) -> tuple[_Member, int]:
        """The member, and at which bit of the type *number* it begins."""
        if depth > _DEEPEST:
            raise LookupError
        nameless = []
        for member in self._members(self._real(number)):
            if member.name == name:
                return member, member.first_bit
            if not member.name:
                nameless.append(member)
        for member in nameless:
            try:
                found, bit = self._find(member.type, name, depth + 1)
            except LookupError:
                continue
            return found, member.first_bit + bit
        raise LookupError

    def _members(self, number: int) -> Iterator[_Member]:
        place = self._places[number]
        info = self._words[place + 1]
        if info >> 24 & 31 not in (_STRUCT, _UNION):
            raise LookupError
        for at in range(place + 3, place + 3 + 3 * (info & 0xFFFF), 3):
            name, kind, where = self._words[at : at + 3]
            text = self._strings[name : self._strings.index(b"\0", name)]
            bits = where >> 24 if info >> 31 else 0  # kind_flag: the upper byte is the width of a bit field
            yield _Member(text, kind, where & 0xFFFFFF if info >> 31 else where, bits)

    def _bytes(self, member: _Member, bit: int) -> Extent:
        first = bit // 8
        if member.bits:
            return Extent(first, (bit + member.bits - 1) // 8 - first + 1)
        return Extent(first, self._size(member.type))

    def _real(self, number: int) -> int:
        for _ in range(_DEEPEST):
            place = self._places[number]
            if self._words[place + 1] >> 24 & 31 not in _NAMES_ANOTHER:
                return number
            number = self._words[place + 2]
        raise LookupError

    def _size(self, number: int) -> int:
        place = self._places[self._real(number)]
        kind = self._words[place + 1] >> 24 & 31
        if kind == _PTR:
            return _POINTER_BYTES
        if kind == _ARRAY:
            return self._size(self._words[place + 3]) * self._words[place + 5]
        return self._words[place + 2]
