"""Which pages of a process are not there yet, where their content lies, and what becomes of that as it runs. Pure.

While a process that was restored without (all of) its pages runs, whoever fills them in hears from the kernel what
it does to its mappings: it moves some, gives pages back, forks. A page that is filled in twice, or where something
else is by now, would be wrong memory, so what is missing is always known by these events alone.

Source: man userfaultfd(2), the events; fs/userfaultfd.c for the order in which they are told.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from migrate.memory.pagemap import PAGE_BYTES


class Piece(NamedTuple):
    """Missing memory: the bytes *start* to *end*, whose content begins at *source*.

    :ivar moved: it came to this place since it was last sure that all has been told.
    """

    start: int
    end: int
    source: int
    moved: bool = False

    def part(self, start: int, end: int) -> Piece:
        """The bytes *start* to *end* of it."""
        return self._replace(start=start, end=end, source=self.source + start - self.start)


class Missing:
    """What is missing in one address space. All addresses are multiples of the page size but where said.

    :param pieces: ascending, no two overlap.
    """

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._pieces = list(pieces)
        self._moved = any(one.moved for one in self._pieces)

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def pieces(self) -> list[Piece]:
        """All of it, ascending."""
        return list(self._pieces)

    @property
    def size_bytes(self) -> int:
        """How much it is."""
        return sum(one.end - one.start for one in self._pieces)

    def last(self, most_bytes: int) -> Piece:
        """The last part of it, of at most so many bytes; there must be one."""
        one = self._pieces[-1]
        return one.part(max(one.start, one.end - most_bytes), one.end)

    def at(self, address: int, most_bytes: int) -> Piece | None:
        """What is missing from the page of any *address* on, up to *most_bytes*; None: that page is not."""
        page = address // PAGE_BYTES * PAGE_BYTES
        index = bisect_right(self._pieces, page, key=_start) - 1
        if index < 0 or self._pieces[index].end <= page:
            return None
        one = self._pieces[index]
        return one.part(page, min(one.end, page + most_bytes))

    def forget(self, start: int, end: int) -> None:
        """These bytes are there, or were given back (madvise(2)): whoever touches them again gets zeros."""
        self._cut(start, end)

    def unmapped(self, start: int, end: int) -> list[Piece]:
        """These bytes were unmapped.

        :return: what is left of them: something that was moved there. The kernel tells of both when it has done
            them, and of the second first if two threads did them at once. So it is kept, and all of it to be filled
            in now: where nothing is mapped that fails, and it is to be forgotten.
        """
        kept = [one for one in self._cut(start, end) if one.moved]
        self._insert(kept)
        return kept

    def remapped(self, old: int, new: int, size: int) -> None:
        """These bytes were moved from *old* to *new* (mremap(2)); what was there before is gone."""
        taken = self._cut(old, old + size)
        self._cut(new, new + size)
        shift, self._moved = new - old, True
        self._insert(
            [Piece(one.start + shift, one.end + shift, one.source, moved=True) for one in taken],
        )

    def forked(self) -> Missing:
        """What is missing in a child that was made now."""
        return Missing(one._replace(moved=False) for one in self._pieces)

    def settled(self) -> None:
        """The kernel has just filled in something: there was nothing that it had done and not told."""
        if self._moved:
            self._pieces = [one._replace(moved=False) for one in self._pieces]
            self._moved = False

    def _insert(self, pieces: list[Piece]) -> None:
        """Put *pieces*, ascending, where none is."""
        if pieces:
            index = bisect_right(self._pieces, pieces[0].start, key=_start)
            self._pieces[index:index] = pieces

    def _cut(self, start: int, end: int) -> list[Piece]:
        """Take out what is missing of these bytes."""
        first = max(0, bisect_right(self._pieces, start, key=_start) - 1)
        if first < len(self._pieces) and self._pieces[first].end <= start:
            first += 1
        last = first
        taken, left = [], []
        while last < len(self._pieces) and self._pieces[last].start < end:
            one = self._pieces[last]
            taken.append(one.part(max(one.start, start), min(one.end, end)))
            if one.start < start:
                left.append(one.part(one.start, start))
            if one.end > end:
                left.append(one.part(end, one.end))
            last += 1
        self._pieces[first:last] = left
        return taken


def _start(piece: Piece) -> int:
    return piece.start
