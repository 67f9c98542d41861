"""Keeps a packet filter in force while the work goes on that needs it, and knows if it ever was not.

A filter ends by itself some time after it was last renewed, so that it outlives nobody for long. If it ends
while a process is frozen, its kernel acknowledges what arrives, or resets it: the work behind it is worth
nothing then, and is rolled back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from migrate.errors import FilterLost
from tcpcp.endpoint.isolation import Flow, Isolation
from tcpcp.record.ici import Endpoint

#: It is renewed when this part of its time is over.
RENEWED_AFTER = 0.25


class Lease:
    """The filter *isolation*, prepared, from the first :meth:`hold` to :meth:`keep` or its release.

    :param now: a clock that does not count the time in which the host sleeps, like the filter's own.
    """

    def __init__(self, isolation: Isolation, now: Callable[[], float] = time.monotonic) -> None:
        self._isolation, self._now = isolation, now
        self._renewed_at: float | None = None
        self._inside = False

    def hold(
        self, flows: Iterable[Flow] = (), listeners: Iterable[Endpoint] = (), *, syn_only: bool = False
    ) -> None:
        """See :meth:`tcpcp.endpoint.isolation.Isolation.hold`.

        :raises FilterLost: what was held before was not in force all the time.
        """
        self.check()
        began = self._now()
        self._isolation.hold(flows, listeners, syn_only=syn_only)
        self._renewed_at = began

    @property
    def lets_inside(self) -> bool:
        """Programs of this host may connect although SYNs are held."""
        return self._inside

    def let_inside(self, *, connect: bool) -> None:
        """See :meth:`tcpcp.endpoint.isolation.Isolation.let_inside`.

        :raises FilterLost: what was held before was not in force all the time.
        """
        if connect != self._inside:
            self.check()
            self._isolation.let_inside(connect=connect)
            self._inside = connect

    def renew(self) -> None:
        """Renew it if it is time to; to be called often.

        :raises FilterLost: it was not in force all the time.
        """
        began = self._now()
        if self._renewed_at is None or began - self._renewed_at < self._isolation.timeout_s * RENEWED_AFTER:
            return
        self.check()
        self._isolation.refresh()
        self._renewed_at = began

    def check(self) -> None:
        """Return if it has been in force since the first :meth:`hold`, or holds nothing yet.

        :raises FilterLost: it has not, or is not.
        """
        if self._renewed_at is None:
            return
        if self._now() - self._renewed_at >= self._isolation.timeout_s:
            raise _lost(f"it ended by itself, since nobody renewed it for {self._isolation.timeout_s} s")
        if not self._isolation.in_force():
            raise _lost("somebody has removed it")

    def keep(self) -> None:
        """Let it hold without limit.

        :raises FilterLost: it has not been in force all the time until now.
        """
        self.check()
        self._isolation.keep()
        self._renewed_at = None


def _lost(why: str) -> FilterLost:
    return FilterLost(
        f"the packet filter was not in force all the time: {why}",
        hint="What came for the frozen process meanwhile may have been answered without it. Look for what stopped"
        " this program so long, or flushes the packet filter (the restart of a firewall), and try again.",
    )
