"""CRIU's pagemap images, and which pages of a task need not be sent a second time. Pure.

A pagemap image names runs of pages in ascending order; the pages themselves follow each other in the pages
image, without gaps. A run with ``PE_PARENT`` instead of ``PE_PRESENT`` has no bytes there: CRIU's restore
looks for it in the image of the same name in the directory ``parent``, and so on down the levels.

Source: CRIU's images/pagemap.proto, criu/include/pagemap.h, criu/pagemap.c seek_pagemap(): it only goes
forward, so runs must ascend; lib/pycriu/images/images.py for the framing.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from migrate.errors import ImageError

try:
    from pycriu.images import magic, pb
except ImportError:
    # It is refused, with the way to get it, before there are images.
    magic = pb = None

PAGE_BYTES = 4096

#: criu/include/pagemap.h
PE_PARENT, PE_PRESENT = 1, 4

_U32 = struct.Struct("<I")
_MAGICS = struct.pack("<II", *(magic.by_name[name] for name in ("IMG_COMMON", "PAGEMAP"))) if magic else b""


class Run(NamedTuple):
    """Pages that follow each other in memory and are in the same place.

    :ivar start: address of the first byte, a multiple of the page size.
    :ivar pages: how many.
    :ivar flags: ``PE_*``.
    """

    start: int
    pages: int
    flags: int


class Copy(NamedTuple):
    """Memory that has been copied: bytes *start* to *end* lie at *offset* in the pages image of *level*."""

    start: int
    end: int
    level: int
    offset: int


@dataclass(frozen=True, slots=True)
class Pagemap:
    """A pagemap image: *runs* of pages in the image ``pages-<pages_id>.img``."""

    pages_id: int
    runs: list[Run]

    def to_bytes(self) -> bytes:
        """The image as CRIU writes it."""
        parts = [_MAGICS, _framed(pb.pagemap_head(pages_id=self.pages_id).SerializeToString())]
        for start, pages, flags in self.runs:
            entry = pb.pagemap_entry(
                vaddr=start, compat_nr_pages=0, in_parent=False, nr_pages=pages, flags=flags
            )
            entry.ClearField("in_parent")
            parts.append(_framed(entry.SerializeToString()))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Pagemap:
        """Read an image of CRIU 4.

        :raises ImageError: not a pagemap image, or a cut one.
        """
        if not data.startswith(_MAGICS):
            raise ImageError("not a pagemap image")
        try:
            head, *entries = _messages(data)
            return cls(
                _whole(pb.pagemap_head.FromString(head)).pages_id,
                [_run(_whole(pb.pagemap_entry.FromString(one))) for one in entries],
            )
        except (DecodeError, ValueError) as error:
            raise ImageError(f"damaged pagemap image: {error}") from error


def _whole(message: Any) -> Any:
    if not message.IsInitialized():
        raise ValueError("a required field is missing")
    return message


def _run(entry: pb.pagemap_entry) -> Run:
    """As criu/pagemap.c init_compat_pagemap_entry() reads it."""
    pages = entry.nr_pages if entry.HasField("nr_pages") else entry.compat_nr_pages
    if entry.in_parent:
        return Run(entry.vaddr, pages, entry.flags | PE_PARENT)
    return Run(entry.vaddr, pages, entry.flags if entry.HasField("flags") else PE_PRESENT)


def _framed(message: bytes) -> bytes:
    return _U32.pack(len(message)) + message


def _messages(data: bytes) -> Iterator[bytes]:
    """The messages of an image of CRIU's, behind its magic numbers. :raises ValueError: it is cut."""
    offset = len(_MAGICS)
    while offset < len(data):
        if offset + _U32.size > len(data):
            raise ValueError("cut in a length")
        (size,) = _U32.unpack_from(data, offset)
        offset += _U32.size
        if offset + size > len(data):
            raise ValueError("cut in a message")
        yield data[offset : offset + size]
        offset += size


def add(runs: list[Run], run: Run) -> None:
    """Append *run*, as part of the last one where that goes on in it."""
    if runs and runs[-1].flags == run.flags and runs[-1].start + runs[-1].pages * PAGE_BYTES == run.start:
        runs[-1] = runs[-1]._replace(pages=runs[-1].pages + run.pages)
    elif run.pages:
        runs.append(run)


def changed_pages(pages: int, equal: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Find the pages that differ between two copies of the same memory, by halving what differs.

    :param equal: whether *count* pages from page *first* on are the same in both.
    :return: (first, count) of each run of such pages, ascending.
    """
    found: list[tuple[int, int]] = []
    differing = [(0, pages)] if pages and not equal(0, pages) else []
    while differing:
        first, count = differing.pop()
        if count == 1:
            if found and sum(found[-1]) == first:
                found[-1] = found[-1][0], found[-1][1] + 1
            else:
                found.append((first, 1))
            continue
        half = count // 2
        left_same = equal(first, half)
        if left_same or not equal(first + half, count - half):
            differing.append((first + half, count - half))
        if not left_same:
            differing.append((first, half))
    return found


class Copies:
    """The newest copy of each page of one task. Immutable: :meth:`overlaid` makes another.

    :param copies: ascending, no two overlap.
    """

    def __init__(self, copies: Iterable[Copy] = ()) -> None:
        self.copies = list(copies)
        self._starts = [copy.start for copy in self.copies]

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, Copy | None]]:
        """Cut the bytes *start* to *end* where copies begin and end.

        :return: (start, end, the copy that has this piece or None), without gaps.
        """
        index = max(0, bisect_right(self._starts, start) - 1)
        while start < end:
            copy = self.copies[index] if index < len(self.copies) else None
            if copy is not None and copy.end <= start:
                index += 1
                continue
            if copy is None or copy.start >= end:
                yield start, end, None
                return
            if copy.start > start:
                yield start, copy.start, None
                start = copy.start
            stop = min(end, copy.end)
            yield start, stop, copy
            start = stop

    def overlaid(self, newer: list[Copy]) -> Copies:
        """These copies where *newer*, ascending, has none."""
        merged: list[Copy] = []
        position = 0
        for copy in newer:
            merged += self._between(position, copy.start)
            merged.append(copy)
            position = copy.end
        merged += self._between(position, self.copies[-1].end if self.copies else 0)
        return Copies(merged)

    def _between(self, start: int, end: int) -> Iterator[Copy]:
        for begin, stop, copy in self.pieces(start, end):
            if copy is not None:
                yield Copy(begin, stop, copy.level, copy.offset + begin - copy.start)

    def runs(self, level: int) -> list[Run]:
        """The pagemap of *level*: its own copies are present, older ones are with its parent."""
        runs: list[Run] = []
        for start, end, of_level, _ in self.copies:
            flags = PE_PRESENT if of_level == level else PE_PARENT
            add(runs, Run(start, (end - start) // PAGE_BYTES, flags))
        return runs
