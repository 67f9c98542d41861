"""Several calls at the same time, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from migrate.testing.leftovers import DEADLINE_S


def begun(*calls: Callable[[], object]) -> list[threading.Thread]:
    """The threads, which run."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> None:
    """All have ended, in time."""
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not any(thread.is_alive() for thread in threads)
