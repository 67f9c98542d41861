"""When phases and spans of a migration began, and how long they took. Pure: the clock is an argument."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from migrate.link.clock import Offset
from migrate.pb.session_pb2 import PhaseTime
from migrate.report.interval import Interval, of_destination


class Span(enum.StrEnum):
    """A stretch of time that matters to the user; it may have several parts."""

    FROZEN = "frozen"
    ISOLATED = "isolated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What a :class:`Timeline` has measured.

    :ivar frozen_ms: how long no task of the process ran.
    :ivar isolated_ms: how long its connections were cut off from their peers.
    :ivar phases, spans: when they were.
    :ivar offset: of the destination's clock, as it was used for its phases; None where they are not known.
    """

    frozen_ms: float = 0.0
    isolated_ms: float = 0.0
    total_ms: float = 0.0
    phases: tuple[Interval, ...] = ()
    spans: tuple[Interval, ...] = ()
    offset: Offset | None = None

    @property
    def phases_ms(self) -> dict[str, dict[str, float]]:
        """Durations by host ("origin", "destination") and phase; those of the same name add up."""
        found: dict[str, dict[str, float]] = {}
        for one in self.phases:
            of_role = found.setdefault(one.role, {})
            of_role[one.name] = of_role.get(one.name, 0.0) + one.duration_ms
        return found


class Timeline:
    """Collects when things began and how long they took.

    :param now: a clock in seconds that never goes back.
    :ivar phases: those that have ended, of both hosts.
    :ivar spans: the parts of spans that have ended.
    :ivar offset: how far the destination's clock was taken to be ahead, to place its phases; or None.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._started_s = now()
        self._open_phases: dict[tuple[str, str], float] = {}
        self._open_spans: dict[Span, float] = {}
        self.phases: list[Interval] = []
        self.spans: list[Interval] = []
        self.offset: Offset | None = None

    def begin(self, phase: str, role: str = "origin") -> None:
        """Begin *phase* on the host *role*; one that is under way already goes on."""
        self._open_phases.setdefault((role, phase), self._now())

    def end(self, phase: str, role: str = "origin") -> float:
        """End *phase* and return its duration in ms; 0 if it had not begun. Times of the same name add up."""
        began_s = self._open_phases.pop((role, phase), None)
        if began_s is None:
            return 0.0
        self.phases.append(self._since(began_s, role, phase))
        return self.phases[-1].duration_ms

    @contextlib.contextmanager
    def phase(self, name: str, role: str = "origin") -> Iterator[None]:
        """Begin the phase, and end it also when its work fails."""
        self.begin(name, role)
        try:
            yield
        finally:
            self.end(name, role)

    def hear(self, phases: Iterable[PhaseTime], offset: Offset | None) -> None:
        """Take what the destination says of its phases, if anything, instead of what it said before.

        :param offset: how far its clock is ahead of ours. What makes no sense is left out.
        """
        began_ns, now_ns = round(1e9 * self._started_s), round(1e9 * self._now())
        if heard := of_destination(phases, offset, began_ns, now_ns):
            self.phases = [one for one in self.phases if one.role != "destination"] + heard
            self.offset = offset

    def _since(self, began_s: float, role: str, name: str) -> Interval:
        return Interval(role, name, 1000 * (began_s - self._started_s), 1000 * (self._now() - began_s))

    def start(self, span: Span) -> None:
        """Mark the beginning of a part of *span*; no effect within one."""
        self._open_spans.setdefault(span, self._now())

    def stop(self, span: Span) -> None:
        """Mark its end; no effect outside one."""
        if (began_s := self._open_spans.pop(span, None)) is not None:
            self.spans.append(self._since(began_s, "process", span.value))

    def span_ms(self, span: Span) -> float:
        """Return the sum of the parts of *span* in ms; a part under way counts until now."""
        open_s = self._now() - self._open_spans[span] if span in self._open_spans else 0.0
        return sum(one.duration_ms for one in self.spans if one.name == span.value) + 1000 * open_s

    def total_ms(self) -> float:
        """Return the time since this object was made, in ms."""
        return 1000 * (self._now() - self._started_s)

    def times(self) -> Times:
        """Return all that was measured until now."""
        return Times(
            frozen_ms=self.span_ms(Span.FROZEN),
            isolated_ms=self.span_ms(Span.ISOLATED),
            total_ms=self.total_ms(),
            phases=tuple(self.phases),
            spans=tuple(self.spans),
            offset=self.offset,
        )
