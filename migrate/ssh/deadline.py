"""A deadline for calls of libraries that know none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from migrate import threads

T = TypeVar("T")


def within(timeout_s: float, call: Callable[[], T]) -> T:
    """Return what *call* returns, or raise what it raises.

    :raises TimeoutError: it takes longer than *timeout_s*; it goes on in a thread, and its result is lost.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="within", daemon=True)
    threads.start(thread)
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no result within {timeout_s:g} s")
    return results[0]
