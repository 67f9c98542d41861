"""Which memory may be filled in after the restore, and where its content is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycriu.images import pb

from migrate.errors import ImageError
from migrate.memory import lazy
from migrate.memory.lazy import Level
from migrate.memory.pagemap import PAGE_BYTES, PE_LAZY, PE_PARENT, PE_PRESENT, Pagemap, Run

PRIVATE, ANONYMOUS, GROWSDOWN, LOCKED, HUGETLB = 0x2, 0x20, 0x100, 0x2000, 0x40000
REGULAR, HEAP, PRIVATE_ANONYMOUS, SHADOW_STACK = 1, 32, 512, 1 << 15
WIPEONFORK = 1 << 18
PLAIN = {"flags": PRIVATE | ANONYMOUS, "status": REGULAR | PRIVATE_ANONYMOUS}


def mapping(first: int, pages: int = 4, **other: int) -> pb.vma_entry:
    values = {"pgoff": 0, "shmid": 0, "prot": 3, "fd": -1, **PLAIN, **other}
    return pb.vma_entry(start=first * PAGE_BYTES, end=(first + pages) * PAGE_BYTES, **values)


def spans(*tasks: list[pb.vma_entry]) -> list[list[tuple[int, int]]]:
    entries = {number: pb.mm_entry(vmas=vmas) for number, vmas in enumerate(tasks)}
    found = lazy.spans(entries)
    return [[(start // PAGE_BYTES, end // PAGE_BYTES) for start, end in found[one]] for one in sorted(found)]


@pytest.mark.parametrize(
    "other",
    [
        {"flags": PRIVATE},
        {"flags": ANONYMOUS | 1},
        *({"flags": PRIVATE | ANONYMOUS | one} for one in (GROWSDOWN, LOCKED, HUGETLB)),
        {"status": REGULAR | PRIVATE_ANONYMOUS | SHADOW_STACK},
        {"madv": WIPEONFORK},
    ],
)
def test_what_is_of_another_kind_is_restored_at_once(other: int) -> None:
    assert spans([mapping(1), mapping(9, **other), mapping(20, status=REGULAR | HEAP)]) == [
        [(1, 5), (20, 24)]
    ]


def test_what_two_processes_may_share_is_restored_at_once() -> None:
    """Each would have pages of its own."""
    parent, child = [mapping(1), mapping(9), mapping(20)], [mapping(1), mapping(9, 5), mapping(30)]
    assert spans(parent, child) == [[(9, 13), (20, 24)], [(9, 14), (30, 34)]]


PAGES = st.sets(st.integers(0, 30), max_size=30)


@given(PAGES, st.lists(st.integers(0, 31), unique=True, max_size=8).map(sorted))
def test_only_what_is_allowed_stays_marked(pages: set[int], edges: list[int]) -> None:
    runs = [Run(page * PAGE_BYTES, 1, PE_PRESENT | (PE_LAZY if page % 7 else 0)) for page in sorted(pages)]
    allowed = list(zip(edges[::2], edges[1::2], strict=False))
    found = lazy.marked(runs, [(start * PAGE_BYTES, end * PAGE_BYTES) for start, end in allowed])
    by_page = {run.start // PAGE_BYTES + number: run.flags for run in found for number in range(run.pages)}
    assert by_page == {
        page: PE_PRESENT | (PE_LAZY if page % 7 and any(start <= page < end for start, end in allowed) else 0)
        for page in pages
    }


def level(number: int, *runs: tuple[int, int, int]) -> Level:
    return Level(number, Pagemap(1, [Run(first * PAGE_BYTES, pages, flags) for first, pages, flags in runs]))


def places(*levels: Level) -> list[tuple[int, int, int, int]]:
    return [
        (one.start // PAGE_BYTES, one.end // PAGE_BYTES, one.level, one.offset // PAGE_BYTES)
        for one in lazy.later(levels)
    ]


def test_the_content_is_in_the_newest_image_that_has_it() -> None:
    top = level(
        0, (1, 2, PE_PRESENT), (3, 1, PE_PRESENT | PE_LAZY), (4, 6, PE_PARENT | PE_LAZY), (10, 1, PE_PARENT)
    )
    middle = level(1, (4, 1, PE_PARENT), (5, 2, PE_PRESENT), (7, 4, PE_PARENT))
    bottom = level(2, (3, 20, PE_PRESENT))
    assert places(top, middle, bottom) == [(3, 4, 0, 2), (4, 5, 2, 1), (5, 7, 1, 0), (7, 10, 2, 4)]
    assert places() == []


@pytest.mark.parametrize("flags", [PE_PARENT | PE_LAZY, PE_LAZY])
def test_what_is_in_no_image_is_an_error(flags: int) -> None:
    with pytest.raises(ImageError, match="in no image"):
        places(level(0, (1, 2, flags)), level(1, (1, 1, PE_PRESENT)))
