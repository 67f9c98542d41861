"""Which pages of a tree that CRIU restores may be filled in after it runs, and where their content is. Pure.

CRIU leaves out the pages that its images mark so (``PE_LAZY``), and its dump marks all that could be: private
anonymous memory that is not locked, but for the page of each stack pointer. Here the mark is taken from what is
better restored at once: memory that two processes have at the same place, since it may be the same pages
(copy-on-write), which each would get a copy of; memory that a child gets empty (MADV_WIPEONFORK); stacks; and
whatever is of a kind that is not known here.

Source: criu/mem.c restore_priv_vma_content(), check_cow_vmas(); criu/include/vma.h vma_entry_can_be_lazy(); CRIU's
images/vma.proto.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from migrate.errors import ImageError
from migrate.memory.pagemap import PAGE_BYTES, PE_LAZY, PE_PARENT, PE_PRESENT, Copies, Copy, Pagemap, Run, add

#: criu/include/image.h: regular, heap, private anonymous; mman(2); madvise(2), the number of the bit.
_KNOWN = 1 << 0 | 1 << 5 | 1 << 9
_PRIVATE, _ANONYMOUS, _GROWSDOWN, _LOCKED, _HUGETLB = 0x2, 0x20, 0x100, 0x2000, 0x40000
_WIPEONFORK = 1 << 18

#: (start, end) of memory.
Span = tuple[int, int]


class Level(NamedTuple):
    """The images of one task in one directory.

    :ivar number: which directory: 0 the images themselves, 1 their parent, …
    """

    number: int
    pagemap: Pagemap


def spans(tasks: Mapping[int, Any]) -> dict[int, list[Span]]:
    """PID -> the mappings of each task that may be filled in later, ascending.

    :param tasks: PID -> its ``mm_entry`` of CRIU.
    """
    shared = Counter((vma.start, vma.end) for entry in tasks.values() for vma in entry.vmas if _private(vma))
    return {
        pid: [(vma.start, vma.end) for vma in entry.vmas if _may(vma) and shared[vma.start, vma.end] == 1]
        for pid, entry in tasks.items()
    }


def _private(vma: Any) -> bool:
    return bool(vma.flags & _PRIVATE)


def _may(vma: Any) -> bool:
    flags = vma.flags
    plain = flags & _PRIVATE and flags & _ANONYMOUS and not flags & (_GROWSDOWN | _LOCKED | _HUGETLB)
    return bool(plain) and not vma.status & ~_KNOWN and not vma.madv & _WIPEONFORK


def marked(runs: Iterable[Run], allowed: Sequence[Span]) -> list[Run]:
    """The same *runs*, of which only what lies in *allowed*, ascending, may be filled in later."""
    found: list[Run] = []
    index = 0
    for run in runs:
        start, end = run.start, run.start + run.pages * PAGE_BYTES
        while index < len(allowed) and allowed[index][1] <= start:
            index += 1
        at = index
        while start < end:
            inside = at < len(allowed) and allowed[at][0] <= start
            edge = allowed[at][inside] if at < len(allowed) else end
            flags = run.flags if inside else run.flags & ~PE_LAZY
            stop = min(end, edge)
            add(found, Run(start, (stop - start) // PAGE_BYTES, flags))
            start, at = stop, at + (inside and stop == edge)
    return found


def later(levels: Sequence[Level]) -> list[Copy]:
    """Where the content is of all that is marked in the first of *levels*, ascending.

    :param levels: of one task: the images, their parent, and so on.
    :raises ImageError: of some of it there is none.
    """
    below = Copies()
    for level in reversed(levels):
        below = below.overlaid(list(_present(level)))
    found = []
    for run in levels[0].pagemap.runs if levels else ():
        if run.flags & PE_LAZY:
            for start, end, copy in below.pieces(run.start, run.start + run.pages * PAGE_BYTES):
                if copy is None or not run.flags & (PE_PRESENT | PE_PARENT):
                    raise ImageError("a page of the memory is in no image")
                found.append(Copy(start, end, copy.level, copy.offset + start - copy.start))
    return found


def _present(level: Level) -> Iterator[Copy]:
    """Which of its pages are in its own pages image, and where there."""
    offset = 0
    for start, pages, flags in level.pagemap.runs:
        if flags & PE_PRESENT and not flags & PE_PARENT:
            yield Copy(start, start + pages * PAGE_BYTES, level.number, offset)
            offset += pages * PAGE_BYTES
