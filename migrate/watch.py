"""What everything that waits looks at, again and again: whether there is still a reason to wait.

Who waits for an answer of CRIU, of the destination or of a thread calls one :class:`Watch` every
``limits.HEED_S``. What may end the wait is said in one place, so that no wait knows less than another.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable

from migrate import interrupt, limits
from migrate.errors import MigrateError


class GivenUp(MigrateError):
    """The migration is being undone: a thread that worked for it ends."""

    usual_hint = ""


class Watch:
    """To be called now and then by whoever waits; raises what ends the wait.

    In the main thread a signal that has come is raised, then what the looks of :meth:`also` raise. Other
    threads are not disturbed before :meth:`end`.
    """

    def __init__(self) -> None:
        self._looks: list[Callable[[], None]] = []
        self._looking = self._over = False

    def also(self, look: Callable[[], None]) -> None:
        """From now on call *look* too. It may itself call what calls this watch."""
        self._looks.append(look)

    def end(self) -> None:
        """Look no more: there is no way back, or it has begun. Threads that wait elsewhere end.

        Signals are still raised where :mod:`migrate.interrupt` lets them.
        """
        self._over = True

    def __call__(self) -> None:
        """Return when there is no reason to stop.

        :raises GivenUp: in a thread that is not the main one, after :meth:`end`.
        :raises MigrateError: whatever a look has found.
        """
        if threading.current_thread() is not threading.main_thread():
            if self._over:
                raise GivenUp("the migration is being undone")
            return
        interrupt.check()
        if self._over or self._looking:
            return
        self._looking = True
        try:
            for look in self._looks:
                look()
        finally:
            self._looking = False


def first_readable(wanted: int, ended: int, deadline: float, heed: Callable[[], None]) -> int:
    """Wait until one of two descriptors can be read, and return it; -1 when *deadline* (time.monotonic()) is over.

    :param wanted: returned if both can. :param ended: tells that nothing more will come, as a pidfd does.
    :param heed: called again and again; what it raises ends the wait.
    """
    poll = select.poll()
    for one in (wanted, ended):
        poll.register(one, select.POLLIN)
    while True:
        heed()
        left_s = deadline - time.monotonic()
        ready = {one for one, _ in poll.poll(1000 * max(0.0, min(left_s, limits.HEED_S)))}
        if ready:
            return wanted if wanted in ready else ended
        if left_s <= 0:
            return -1


def nothing() -> None:
    """The watch of those who have nothing to look at."""
