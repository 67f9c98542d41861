"""Pagemap images, and which pages need not travel twice."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycriu import images

from migrate.errors import ImageError
from migrate.memory.pagemap import (
    PAGE_BYTES,
    PE_PARENT,
    PE_PRESENT,
    Copies,
    Copy,
    Pagemap,
    Run,
    add,
    changed_pages,
)

#: One that says nothing to us.
PE_LAZY = 2
FLAGS = st.sampled_from([PE_PRESENT, PE_PRESENT | PE_LAZY, PE_PARENT])
SPANS = st.lists(st.integers(0, 60), unique=True).map(sorted)


@st.composite
def runs(draw: st.DrawFn) -> list[Run]:
    """Ascending runs, some of which touch."""
    found, page = [], 0
    for gap, pages, flags in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1 << 40), FLAGS))):
        found.append(Run((page + gap) * PAGE_BYTES, pages, flags))
        page += gap + pages
    return found if page * PAGE_BYTES < 1 << 64 else []


@st.composite
def levels(draw: st.DrawFn, level: int) -> list[Copy]:
    """Ascending copies in one pages image, which they fill without gaps."""
    edges = draw(SPANS)
    copies, offset = [], 0
    for start, end in zip(edges[::2], edges[1::2], strict=False):
        copies.append(Copy(start * PAGE_BYTES, end * PAGE_BYTES, level, offset))
        offset += (end - start) * PAGE_BYTES
    return copies


def by_page(copies: list[Copy]) -> dict[int, tuple[int, int]]:
    """Page -> level and offset: the same, written so that nothing can go wrong."""
    return {
        page: (copy.level, copy.offset + page - copy.start)
        for copy in copies
        for page in range(copy.start, copy.end, PAGE_BYTES)
    }


@given(st.integers(1, 1 << 31), runs())
def test_an_image_comes_back(pages_id: int, some: list[Run]) -> None:
    pagemap = Pagemap(pages_id, some)
    assert Pagemap.from_bytes(pagemap.to_bytes()) == pagemap


@given(st.integers(1, 1 << 31), runs())
def test_crius_own_decoder_reads_the_same(pages_id: int, some: list[Run]) -> None:
    decoded = images.load(io.BytesIO(Pagemap(pages_id, some).to_bytes()), pretty=False)
    head, *entries = decoded["entries"]
    assert (decoded["magic"], head["pages_id"]) == ("PAGEMAP", pages_id)
    assert [Run(one["vaddr"], one["nr_pages"], one["flags"]) for one in entries] == some


def test_an_image_of_an_older_criu_is_read() -> None:
    image = {
        "magic": "PAGEMAP",
        "entries": [
            {"pages_id": 7},
            {"vaddr": 4096, "compat_nr_pages": 2},
            {"vaddr": 65536, "compat_nr_pages": 1, "in_parent": True},
        ],
    }
    expected = [Run(4096, 2, PE_PRESENT), Run(65536, 1, PE_PARENT)]
    assert Pagemap.from_bytes(images.dumps(image)) == Pagemap(7, expected)


@given(runs(), st.data())
def test_a_damaged_image_is_refused_or_shorter(some: list[Run], data: st.DataObject) -> None:
    whole = Pagemap(1, some).to_bytes()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with contextlib.suppress(ImageError):
        assert len(Pagemap.from_bytes(cut).runs) < len(some)


@pytest.mark.parametrize("data", [b"", b"\0" * 20, Pagemap(1, []).to_bytes()[:-1] + b"\xff"])
def test_what_is_no_pagemap_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        Pagemap.from_bytes(data)


@given(runs())
def test_runs_that_touch_become_one(some: list[Run]) -> None:
    merged: list[Run] = []
    for run in some:
        add(merged, run)
        add(merged, Run(run.start + run.pages * PAGE_BYTES, 0, run.flags))
    assert sum(run.pages for run in merged) == sum(run.pages for run in some)
    for one, other in zip(merged, merged[1:], strict=False):
        assert one.start + one.pages * PAGE_BYTES < other.start or one.flags != other.flags


@given(st.lists(st.booleans(), max_size=300))
def test_exactly_the_changed_pages_are_found(differs: list[bool]) -> None:
    asked = []

    def equal(first: int, count: int) -> bool:
        asked.append(count)
        return not any(differs[first : first + count])

    found = [
        page for first, count in changed_pages(len(differs), equal) for page in range(first, first + count)
    ]
    assert found == [page for page, changed in enumerate(differs) if changed]
    assert len(asked) <= 2 * len(differs) + 1
    if not any(differs):
        assert len(asked) <= 1


@given(levels(1), levels(2), levels(3))
def test_a_newer_copy_hides_an_older_one(first: list[Copy], second: list[Copy], third: list[Copy]) -> None:
    copies = Copies(first).overlaid(second).overlaid(third)
    assert by_page(copies.copies) == by_page(first) | by_page(second) | by_page(third)
    assert all(one.end <= other.start for one, other in zip(copies.copies, copies.copies[1:], strict=False))


@given(levels(1), levels(2), st.integers(0, 70), st.integers(0, 70))
def test_pieces_cover_a_range_and_name_its_copies(
    first: list[Copy], second: list[Copy], start: int, pages: int
) -> None:
    copies = Copies(first).overlaid(second)
    expected = by_page(copies.copies)
    at = start * PAGE_BYTES
    for begin, end, copy in copies.pieces(at, (start + pages) * PAGE_BYTES):
        assert begin == at < end
        for page in range(begin, end, PAGE_BYTES):
            found = copy and (copy.level, copy.offset + page - copy.start)
            assert found == expected.get(page)
        at = end
    assert at == (start + pages) * PAGE_BYTES


@given(levels(1), levels(2))
def test_each_level_leads_to_every_page(first: list[Copy], second: list[Copy]) -> None:
    """As CRIU reads it: present runs of a level follow each other in its pages image, others are below."""
    older, newer = Copies(first), Copies(first).overlaid(second)
    expected = by_page(newer.copies)
    below = place(older.runs(1), 1, {})
    assert place(newer.runs(2), 2, below) == expected


def place(some: list[Run], level: int, below: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Page -> level and offset, for a reader that knows only the pagemaps."""
    found, offset = {}, 0
    for start, pages, flags in some:
        for page in range(start, start + pages * PAGE_BYTES, PAGE_BYTES):
            if flags & PE_PARENT:
                found[page] = below[page]
            else:
                found[page] = level, offset
                offset += PAGE_BYTES
    return found


def test_a_required_field_is_missing() -> None:
    whole = Pagemap(1, [Run(4096, 1, PE_PRESENT)]).to_bytes()
    assert Pagemap.from_bytes(whole).pages_id == 1
    without_head = whole[:8] + bytes(4) + whole[8 + 4 + whole[8] :]
    for damaged in (whole[:8], without_head, whole + bytes(4)):
        with pytest.raises(ImageError, match="damaged pagemap image"):
            Pagemap.from_bytes(damaged)
