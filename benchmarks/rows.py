"""What is shown: rows of figures by competitor, ratios first, targets beside; as Markdown and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from arena import Series
from movers import IPTABLES, MIGRATE, NFTABLES

STOCK = (NFTABLES, IPTABLES)
HEAD = ("", "ratio", "`migrate`", "stock CRIU, nftables lock", "stock CRIU, iptables lock", "target")
Medians = dict[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """What was aimed at; *met* judges the medians of a row by competitor."""

    text: str
    met: Callable[[Medians], bool]

    def verdict(self, medians: Medians) -> str:
        """``met``, ``missed``, or why neither."""
        try:
            return "met" if self.met(medians) else "missed"
        except KeyError:
            return "not measured"


def at_most(limit: float, unit: str) -> Target:
    """``migrate``'s median has a bound."""
    return Target(f"at most {limit:g} {unit}".strip(), lambda medians: medians[MIGRATE] <= limit)


@dataclass(slots=True)
class Row:
    """One figure.

    :ivar values: all measured values by competitor.
    :ivar failures: of the runs they come from, by competitor.
    :ivar more_is_better: for rates.
    """

    benchmark: str
    what: str
    unit: str
    values: dict[str, list[float]]
    failures: dict[str, list[str]] = field(default_factory=dict)
    target: Target | None = None
    more_is_better: bool = False

    def medians(self) -> Medians:
        """Of those that gave values."""
        return {name: statistics.median(values) for name, values in self.values.items() if values}

    def ratio(self) -> float | None:
        """How many times better ``migrate`` is than stock CRIU with its nftables lock, medians compared."""
        medians = self.medians()
        if MIGRATE not in medians or NFTABLES not in medians:
            return None
        good, other = medians[MIGRATE], medians[NFTABLES]
        if self.more_is_better:
            good, other = other, good
        return other / good if good else None

    def as_json(self) -> dict[str, Any]:
        """For results.json: every value."""
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "unit": self.unit,
            "more_is_better": self.more_is_better,
            "ratio": self.ratio(),
            "competitors": {name: self._competitor(name) for name in self.values},
            "target": self.target and {"text": self.target.text, "verdict": self._verdict()},
        }

    def _competitor(self, name: str) -> dict[str, Any]:
        values = self.values[name]
        summary = (
            {"min": min(values), "median": statistics.median(values), "max": max(values)} if values else {}
        )
        return {**summary, "values": values, "failures": self.failures.get(name, [])}

    def _verdict(self) -> str:
        return self.target.verdict(self.medians()) if self.target else ""

    def cells(self) -> list[str]:
        """One line of the table."""
        ratio = self.ratio()
        target = f"{self.target.text}: **{self._verdict()}**" if self.target else ""
        competitors = [self._cell(name) for name in (MIGRATE, *STOCK)]
        return [self.what, "" if ratio is None else f"**{ratio:.1f}**", *competitors, target]

    def _cell(self, name: str) -> str:
        if name not in self.values:
            return ""
        values, failed = self.values[name], len(self.failures.get(name, []))
        note = f" ({failed} of {failed + len(values)} runs failed)" if failed else ""
        if not values:
            return "failed" + note
        low, middle, high = (number(f(values)) for f in (min, statistics.median, max))
        between = "" if low == high else f" ({low} to {high})"
        return f"{middle}{between} {self.unit}".rstrip() + note


def number(value: float) -> str:
    """Three digits where there are that many."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def row(
    benchmark: str,
    what: str,
    unit: str,
    series: dict[str, Series],
    metric: str,
    *,
    target: Target | None = None,
    more_is_better: bool = False,
    scale: float = 1.0,
) -> Row:
    """The row of one *metric* of *series*."""
    values = {name: [scale * value for value in one.of(metric)] for name, one in series.items()}
    failures = {name: one.failures for name, one in series.items()}
    return Row(benchmark, what, unit, values, failures, target, more_is_better)


def table(rows: Iterable[Row]) -> str:
    """All rows as a Markdown table, each benchmark under its name."""
    lines = [_line(HEAD), _line(["---"] + ["---:"] * 4 + ["---"])]
    before = ""
    for one in rows:
        if one.benchmark != before:
            before = one.benchmark
            lines.append(_line([f"**{before}**", *[""] * (len(HEAD) - 1)]))
        lines.append(_line(one.cells()))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
