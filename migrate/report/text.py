"""A report as text for people. Pure."""

from __future__ import annotations

from migrate.errors import Problem
from migrate.report.report import Outcome, Report
from migrate.units import duration, size


def render(report: Report, *, verbose: bool = False) -> list[str]:
    """Return the lines of *report*: what is true now, why, what to do, then the figures.

    :param verbose: with the details of an error, e.g. the first errors of CRIU's log.
    """
    blocks = [
        [headline(report)],
        [*(_reasons(report) or _error(report)), *_log(report)],
        [f"  {note}" for note in report.notes],
        _indented("What to do now:", report.instructions),
        _indented("Details:", list(report.error.details) if report.error and verbose else []),
        _figures(report),
        _phases(report),
    ]
    lines: list[str] = []
    for block in blocks:
        lines += [*([""] if lines and block else []), *block]
    return [clean(line).rstrip() for line in lines]


def headline(report: Report) -> str:
    """Return the outcome and where the process is, in one line."""
    if report.error is None and report.outcome is Outcome.UNTOUCHED:
        if not report.pid:
            return "RECOVER"
        if not report.host:
            return f"READY: nothing on this host is in the way of PID {report.pid}"
        return f"READY: PID {report.pid} can be moved to {report.host}"
    where = report.where
    if where and report.pid and str(report.pid) not in where:
        where = f"PID {report.pid} {where}"
    return f"{report.outcome.value}: {where}" if where else report.outcome.value


def clean(text: str) -> str:
    """Return *text* without what could steer a terminal; some of it comes from another host."""
    return "".join(c if c.isprintable() else " " if c in "\t\n\r" else f"\\x{ord(c):02x}" for c in text)


def _reasons(report: Report) -> list[str]:
    if not report.reasons:
        return []
    width = max(len(report.host_of(reason.role)) for reason in report.reasons)
    noun = "reason" if len(report.reasons) == 1 else "reasons"
    lines = [f"{len(report.reasons)} {noun} not to begin:"]
    for reason in report.reasons:
        lines.append(f"  {report.host_of(reason.role):<{width}}  {reason.text}")
        if reason.remedy:
            lines.append(f"  {'':<{width}}  -> {reason.remedy}")
    return lines


def _error(report: Report) -> list[str]:
    error = report.error
    if error is None:
        return []
    lines = [f"  failed  {_place(report, error)}{error.text}"]
    if error.hint:
        lines.append(f"  to do   {error.hint}")
    return lines


def _log(report: Report) -> list[str]:
    """Where to read on, after a failure."""
    if report.error is None or not report.trace.logs:
        return []
    return [f"  log     {report.trace.logs[role]} on {report.host_of(role)}" for role in report.trace.logs]


def _place(report: Report, error: Problem) -> str:
    if error.bug:
        return f"a bug in migrate ({error.kind}), please report it: "
    where = f"on {report.host_of(error.host)}: "
    return f"{error.phase} {where}" if error.phase else where


def _indented(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else []


def _figures(report: Report) -> list[str]:
    sent, times = report.sent, report.times
    if not times.frozen_ms:
        return []
    rows = [
        ("frozen", duration(times.frozen_ms)),
        ("isolated", duration(times.isolated_ms)),
        ("total", duration(times.total_ms)),
        ("connections", str(sent.connections)),
        ("images", size(sent.image_bytes)),
        ("gap packets", f"{sent.gap_packets}{f', {lost} lost' if (lost := sent.gap_dropped) else ''}"),
    ]
    return [f"  {name:<12}{value:>12}" for name, value in rows]


def _phases(report: Report) -> list[str]:
    """A table with a row for each phase and a column for each host."""
    measured = report.times.phases_ms
    if not report.times.frozen_ms or not measured:
        return []
    roles = list(measured)
    names = list(dict.fromkeys(name for phases in measured.values() for name in phases))
    width = max(len(name) for name in ["phase", *names]) + 2
    lines = [f"  {'phase':<{width}}" + "".join(f"{role:>13}" for role in roles)]
    for name in names:
        cells = [measured[role].get(name) for role in roles]
        texts = ["" if cell is None else duration(cell) for cell in cells]
        lines.append(f"  {name:<{width}}" + "".join(f"{text:>13}" for text in texts))
    return lines
