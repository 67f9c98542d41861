"""Which pages are missing, against a table of all pages, as the process maps, moves, gives back and forks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from migrate.memory.missing import Missing, Piece
from migrate.memory.pagemap import PAGE_BYTES

PAGES = 40
PAGE = st.integers(0, PAGES - 1)
COUNT = st.integers(1, 8)


def piece(start: int, pages: int, source: int, *, moved: bool = False) -> Piece:
    return Piece(start * PAGE_BYTES, (start + pages) * PAGE_BYTES, source * PAGE_BYTES, moved)


def by_page(missing: Missing) -> dict[int, tuple[int, bool]]:
    """Page -> where its content is, and whether it was moved; that pieces ascend is made sure of."""
    found, end = {}, 0
    for one in missing.pieces:
        assert end <= one.start < one.end
        end = one.end
        for number in range((one.end - one.start) // PAGE_BYTES):
            found[one.start // PAGE_BYTES + number] = (one.source // PAGE_BYTES + number, one.moved)
    return found


class Process(RuleBasedStateMachine):
    """One that does what it likes, and the table of what each page of it is to become."""

    def __init__(self) -> None:
        super().__init__()
        pieces = [piece(2, 10, 1000), piece(12, 3, 2000), piece(20, 15, 3000)]
        self.missing = Missing(pieces)
        self.table = by_page(self.missing)
        self.children: list[tuple[Missing, dict[int, tuple[int, bool]]]] = []

    @rule(start=PAGE, count=COUNT)
    def gives_back(self, start: int, count: int) -> None:
        self.missing.forget(start * PAGE_BYTES, (start + count) * PAGE_BYTES)
        for page in range(start, start + count):
            self.table.pop(page, None)

    @rule(start=PAGE, count=COUNT)
    def unmaps(self, start: int, count: int) -> None:
        kept = self.missing.unmapped(start * PAGE_BYTES, (start + count) * PAGE_BYTES)
        before = {page: self.table[page] for page in range(start, start + count) if page in self.table}
        for page, (_, moved) in before.items():
            if not moved:
                del self.table[page]
        assert by_page(Missing(kept)) == {page: one for page, one in before.items() if one[1]}

    @rule(old=PAGE, count=COUNT, shift=st.integers(8, 60))
    def moves(self, old: int, count: int, shift: int) -> None:
        new = (old + shift) % (2 * PAGES)
        if abs(new - old) < count:
            return
        self.missing.remapped(old * PAGE_BYTES, new * PAGE_BYTES, count * PAGE_BYTES)
        taken = {number: self.table.pop(old + number, None) for number in range(count)}
        for number, one in taken.items():
            self.table.pop(new + number, None)
            if one:
                self.table[new + number] = (one[0], True)

    @rule()
    def forks(self) -> None:
        table = {page: (source, False) for page, (source, _) in self.table.items()}
        self.children.append((self.missing.forked(), table))

    @rule()
    def all_is_told(self) -> None:
        self.missing.settled()
        self.table = {page: (source, False) for page, (source, _) in self.table.items()}

    @rule(most=COUNT)
    def is_filled(self, most: int) -> None:
        if self.missing:
            one = self.missing.last(most * PAGE_BYTES)
            assert one.end == max(self.table) * PAGE_BYTES + PAGE_BYTES
            assert by_page(Missing([one])).items() <= self.table.items()
            self.gives_back(one.start // PAGE_BYTES, (one.end - one.start) // PAGE_BYTES)

    @rule(page=PAGE, offset=st.integers(0, PAGE_BYTES - 1), most=COUNT)
    def faults(self, page: int, offset: int, most: int) -> None:
        one = self.missing.at(page * PAGE_BYTES + offset, most * PAGE_BYTES)
        assert (one is None) == (page not in self.table)
        if one is not None:
            assert one.start == page * PAGE_BYTES
            assert one.end - one.start <= most * PAGE_BYTES
            assert by_page(Missing([one])).items() <= self.table.items()

    @invariant()
    def it_is_the_table(self) -> None:
        assert by_page(self.missing) == self.table
        assert self.missing.size_bytes == len(self.table) * PAGE_BYTES
        assert bool(self.missing) == bool(self.table)
        for child, table in self.children:
            assert by_page(child) == table


TestProcess = Process.TestCase
TestProcess.settings = settings(max_examples=25, stateful_step_count=40)


@given(st.integers(0, 5), st.integers(1, 5))
def test_nothing_is_missing_in_nothing(start: int, count: int) -> None:
    missing = Missing()
    missing.forget(start * PAGE_BYTES, (start + count) * PAGE_BYTES)
    missing.remapped(start * PAGE_BYTES, (start + count) * PAGE_BYTES, count * PAGE_BYTES)
    assert not missing
    assert missing.at(start * PAGE_BYTES, PAGE_BYTES) is None
