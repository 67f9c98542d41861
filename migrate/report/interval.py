"""When something happened, on the clock of one migration. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from migrate.link.clock import Offset
from migrate.pb.session_pb2 import PhaseTime

#: How many phases of the other host are believed, and what a name of one looks like.
MAX_PHASES = 64
_NAME = re.compile(r"[a-z][a-z -]{0,23}")
#: How far beyond the migration a phase of the other host may lie: its clock runs a little differently.
_SLACK_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A phase, or a part of a span.

    :ivar role: the host: ``"origin"`` or ``"destination"``; ``"process"`` for a span.
    :ivar start_ms: since the migration began, on the origin's clock.
    """

    role: str
    name: str
    start_ms: float
    duration_ms: float

    @property
    def end_ms(self) -> float:
        """When it was over."""
        return self.start_ms + self.duration_ms


def of_destination(
    phases: Iterable[PhaseTime], offset: Offset | None, began_ns: int, now_ns: int
) -> list[Interval]:
    """Return what the destination says of its phases, put on our clock.

    What cannot be is left out: another name than one of a phase, times outside of the migration, too many.

    :param offset: how far its clock is ahead; without one nothing can be said.
    :param began_ns, now_ns: of our clock; the migration lies between.
    """
    if offset is None:
        return []
    slack_ns = offset.uncertainty_ns + _SLACK_NS
    found = []
    for phase in list(phases)[:MAX_PHASES]:
        start_ns = phase.start_ns - offset.ns
        inside = began_ns - slack_ns <= start_ns <= start_ns + phase.duration_ns <= now_ns + slack_ns
        if inside and _NAME.fullmatch(phase.name):
            start_ms = (start_ns - began_ns) / 1e6
            found.append(Interval("destination", phase.name, start_ms, phase.duration_ns / 1e6))
    return found
