"""Whether the other side of a link still lives: it says something at least every second. No thread, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from migrate import limits


@dataclass(frozen=True, slots=True)
class Limits:
    """How quiet a link may be.

    :ivar silence_s: it counts as lost when nothing arrived for so long, from the first byte on: how long the other
        side may take to start is for who waits for its first message.
    :ivar ping_s: after how long a silence of ours something is sent.
    """

    silence_s: float = limits.SILENCE_S
    ping_s: float = limits.PING_S


#: Those of every session.
USUAL = Limits()


class Heartbeat:
    """What was heard of the other side, and when; times in seconds of one clock that does not go back."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._heard_at: float | None = None
        self._held = False

    def heard(self, now: float) -> None:
        """Something has come, or may come again after :meth:`hold`."""
        self._held, self._heard_at = False, now

    def hold(self) -> None:
        """Nothing is read until the next :meth:`heard`: what comes waits, and that is no silence."""
        self._held = True

    def left_s(self, now: float) -> float:
        """How long the silence may still last until the link counts as lost; 0 or less: it is lost."""
        since = now if self._held or self._heard_at is None else self._heard_at
        return since + self._silence_s - now
