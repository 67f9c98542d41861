"""The build-id of an ELF file: what the linker made of all its content, to tell two builds apart.

Pure: the file is read through a function that is given. Whatever the bytes are, the answer is a build-id or
none; a program that is being moved may have mapped anything.

Source: man elf(5); include/uapi/linux/elf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

#: ``read(offset, size)`` returns at most *size* bytes at *offset*, fewer at the end of the file.
Read = Callable[[int, int], bytes]

_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3

#: Real files have a dozen program headers, and notes of some hundred bytes.
_MOST_HEADERS = 512
_MOST_ENTRY_BYTES = 256
_MOST_NOTE_BYTES = 1 << 16
#: SHA-512, the longest that anybody has proposed.
_MOST_ID_BYTES = 64


class _Layout(NamedTuple):
    """Where the fields are, which depends on the word size.

    :ivar header: e_phoff, e_phentsize, e_phnum, from byte 16 of the file on.
    :ivar segment: p_type, p_offset, p_filesz of a program header.
    """

    header: str
    segment: str


_LAYOUTS = {1: _Layout("12xI10xHH", "II8xI"), 2: _Layout("16xQ14xHH", "I4xQ16xQ")}
_BYTE_ORDERS = {1: "<", 2: ">"}


def build_id(read: Read) -> bytes:
    """Return the build-id, as ``file`` and ``readelf -n`` show it, or b"" when there is none.

    :param read: see :data:`Read`; what it raises passes through, nothing else is raised.
    """
    left = _MOST_NOTE_BYTES
    try:
        for offset, size in _note_segments(read):
            part = read(offset, min(size, left))
            left -= len(part)
            for name, kind, content in _notes(part, read(5, 1)):
                if kind == _NT_GNU_BUILD_ID and name == b"GNU\0" and len(content) <= _MOST_ID_BYTES:
                    return content
    except (struct.error, KeyError):
        pass  # cut, or no ELF file
    return b""


def _note_segments(read: Read) -> Iterator[tuple[int, int]]:
    identity = read(0, 16)
    if identity[:4] != b"\x7fELF" or len(identity) < 16:
        return
    layout, order = _LAYOUTS[identity[4]], _BYTE_ORDERS[identity[5]]
    header = struct.Struct(order + layout.header)
    segment = struct.Struct(order + layout.segment)
    first, entry_size, count = header.unpack(read(16, header.size))
    if not segment.size <= entry_size <= _MOST_ENTRY_BYTES:
        return
    table = read(first, entry_size * min(count, _MOST_HEADERS))
    for offset in range(0, len(table) - segment.size + 1, entry_size):
        kind, begin, size = segment.unpack_from(table, offset)
        if kind == _PT_NOTE:
            yield begin, size


def _notes(part: bytes, byte_order: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield name, type and content of each note; each is padded to four bytes."""
    head = struct.Struct(_BYTE_ORDERS[byte_order[0]] + "III")
    offset = 0
    while offset + head.size <= len(part):
        name_size, size, kind = head.unpack_from(part, offset)
        name_at = offset + head.size
        content_at = name_at + ((name_size + 3) & ~3)
        offset = content_at + ((size + 3) & ~3)
        if content_at + size > len(part):
            return
        yield part[name_at : name_at + name_size], kind, part[content_at : content_at + size]
