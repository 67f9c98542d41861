"""Which of the processes that fit is the root of a tree. How they are found: tests/lab/test_by_name.py."""

from __future__ import annotations

import pytest

from migrate.inventory import named, proc

#: PID -> parent.
PARENTS = {1: 0, 10: 1, 11: 10, 12: 10, 20: 1, 21: 20}


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([], []),
        ([11], [11]),
        ([12, 11, 10], [10]),
        ([11, 12], [11, 12]),
        ([10, 12, 21], [10, 21]),
        ([1, 21], [1]),
    ],
)
def test_roots(found: list[int], wanted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def ancestors(pid: int) -> list[int]:
        return [pid, *(ancestors(PARENTS[pid]) if PARENTS[pid] else [])]

    monkeypatch.setattr(proc, "ancestors", ancestors)
    assert named.roots(found) == wanted
