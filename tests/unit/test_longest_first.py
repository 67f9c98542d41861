"""The order of files for several workers."""

from __future__ import annotations

from pathlib import Path

import longest_first
import pytest

TESTS = Path(longest_first.__file__).parent


def test_the_longest_file_begins_and_files_stay_together() -> None:
    few, many, space = (TESTS / "facts" / name for name in ("test_few.py", "test_many.py", "test_space.py"))
    files = [few, few, many, many, many, space]
    assert longest_first.in_order(files) == [5, 2, 3, 4, 0, 1]


def test_files_of_the_same_length_stay_together() -> None:
    files = [TESTS / "facts" / name for name in ("test_b.py", "test_b.py", "test_a.py", "test_a.py")]
    assert longest_first.in_order(files) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", longest_first.SECONDS)
def test_each_file_that_is_named_is_there(name: str) -> None:
    assert (TESTS / name).is_file()
