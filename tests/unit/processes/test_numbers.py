"""Numbers that a tree will need are not given to anybody soon."""

from __future__ import annotations

import pytest

from migrate.processes import numbers


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], 1000),
        ([1001], 1001),
        ([1005, 1076, 1080], 1080),
        ([999, 1000], 1000),
        ([30000], 1000),
        ([1010, 30000], 1010),
    ],
)
def test_where_to_go_on(wanted: list[int], expected: int) -> None:
    assert numbers.behind(1000, wanted) == expected
