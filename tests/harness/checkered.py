"""Combinations of which half, as the black squares of a board, says nearly as much as all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest


def checkered(*axes: Sequence[Any]) -> list[Any]:
    """Every combination of one value of each of *axes*, for parametrize; every other one has the mark ``long``.

    What is left without those: of two axes each value, of three or more each pair of values; of one every other
    value, the first and, where their number is odd, the last among them.
    """
    found = []
    for chosen in itertools.product(*map(enumerate, axes)):
        values = [value for _, value in chosen]
        odd = sum(number for number, _ in chosen) % 2
        found.append(pytest.param(*values, marks=pytest.mark.long if odd else ()))
    return found
