"""How far one has come in a list whose order counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Column(Generic[T]):
    """Goes down *column*: what stands in it may come in its order, each any number of times, or not at all."""

    def __init__(self, column: Iterable[T]) -> None:
        self._left = list(column)

    def may(self, one: T) -> bool:
        """Whether *one* may come now; then nothing may any more that stands before it."""
        if one not in self._left:
            return False
        del self._left[: self._left.index(one)]
        return True
