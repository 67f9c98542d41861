"""The waiter. A limit of a test says when to give up one that hangs, not how fast anything has to be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

#: How many times longer than usual the lab's hosts may take: for machines that are emulated (tests/vm).
FACTOR = float(os.environ.get("LAB_PATIENCE", "1"))
DEADLINE_S = 20.0 * FACTOR

T = TypeVar("T")


class TooLate(AssertionError):
    """It did not come true in time; the text says what."""


def eventually(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    within_s: float = DEADLINE_S,
    *,
    pause_s: float = 0.01,
) -> T:
    """Wait until *condition* gives something true, and return it.

    :param what: it is that is awaited; a function is asked when it is too late.
    :raises TooLate: not within *within_s*.
    """
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TooLate(f"not within {within_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause_s)
    return found
