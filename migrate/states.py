"""Where a migration is, and where its process is in the end. What leads on is in :mod:`migrate.steps`."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a migration is; the last four are ends."""

    STARTED = "STARTED"
    CHECKED = "CHECKED"
    FROZEN = "FROZEN"
    DUMPED = "DUMPED"
    ISOLATED = "ISOLATED"
    STREAMED = "STREAMED"
    RESTORED = "RESTORED"
    SWITCHED = "SWITCHED"
    COMMITTED = "COMMITTED"
    ACTIVATED = "ACTIVATED"
    RELEASED = "RELEASED"


#: From here on the origin's copy never runs again by itself, and nothing may be interrupted.
GIVEN_AWAY = frozenset({State.COMMITTED, State.ACTIVATED, State.RELEASED})


class Outcome(enum.StrEnum):
    """Where the process is in the end. No failure makes ENDED: it is what is seen when all is over."""

    UNTOUCHED = "UNTOUCHED"
    ROLLED_BACK = "ROLLED_BACK"
    IN_DOUBT = "IN_DOUBT"
    MOVED = "MOVED"
    ENDED = "ENDED"
