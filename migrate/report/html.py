"""A migration as one page: how it ended and why, the drawing, and its phases as a table. Pure.

It is for a desk, a phone and paper: what is wide, the drawing, moves in a frame of its own on a narrow screen.

The page is XML as well as HTML, and as self-contained as the drawing.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from migrate.report.interval import Interval
from migrate.report.panel import add, short
from migrate.report.report import Report
from migrate.report.svg import draw
from migrate.report.text import headline

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1e293b;max-width:1000px;margin:2em auto;padding:0 1em;"
    "overflow-wrap:anywhere}"
    "h1{font-size:1.35em}h2{font-size:1.1em}table{border-collapse:collapse;margin:1em 0}"
    "th,td{padding:.2em 1em .2em 0;border-bottom:1px solid #e2e8f0;text-align:left;vertical-align:top}"
    ".ms{text-align:right;font-variant-numeric:tabular-nums}.why{color:#c53030}"
    ".drawing{overflow-x:auto}svg{display:block;width:100%;min-width:640px;height:auto}"
    "@media print{body{max-width:none;margin:0;font-size:11px}svg{min-width:0}tr,li,svg{break-inside:avoid}}"
)
_LONGEST = 1000
#: Of the details of an error; the log has all.
_MOST_DETAILS = 20


def page(report: Report, origin_name: str) -> str:
    """Return the page of *report*.

    :param origin_name: of the host that we run on.
    """
    html = ET.Element("html", {"lang": "en"})
    head = add(html, "head")
    add(head, "meta", charset="utf-8")
    add(head, "title", f"migrate: {short(headline(report), 100)}")
    add(head, "style", _STYLE)
    add(head, "meta", name="viewport", content="width=device-width,initial-scale=1")
    body = add(html, "body")
    add(body, "h1", headline(report)[:_LONGEST])
    _facts(body, report, origin_name)
    _why(body, report)
    _list(body, "What else is to be known", report.notes)
    _list(body, "What to do now", report.instructions)
    if rows := [*report.times.spans, *report.times.phases]:
        add(body, "div", class_="drawing").append(draw(report, origin_name))
        _table(body, rows)
    ET.indent(html, " ")
    return "<!DOCTYPE html>\n" + ET.tostring(html, encoding="unicode") + "\n"


def _facts(body: ET.Element, report: Report, origin_name: str) -> None:
    trace = report.trace
    program = f"{trace.program} (PID {report.pid})" if trace.program else f"PID {report.pid}"
    facts = [
        ("began", trace.began),
        ("process", program if report.pid else ""),
        ("from", origin_name),
        ("to", report.host),
        ("addresses", ", ".join(trace.addresses)),
        ("connections", str(report.sent.connections or "")),
        *((f"log, {report.host_of(role)}", path) for role, path in trace.logs.items()),
    ]
    table = add(body, "table", class_="facts")
    for name, value in facts:
        if value:
            row = add(table, "tr")
            add(row, "th", name)
            add(row, "td", value[:_LONGEST])


def _why(body: ET.Element, report: Report) -> None:
    """What failed, or all reasons of a refusal, and what to do about each."""
    if report.reasons:
        told = [f"{report.host_of(one.role)}: {one.text}. {one.remedy}" for one in report.reasons]
        return _list(body, "Reasons not to begin", told)
    if (error := report.error) is not None:
        place = f"{error.phase} on {report.host_of(error.host)}: " if error.phase else ""
        add(body, "p", f"{place}{error.text}"[:_LONGEST], class_="why")
        _list(body, "What to do about it", [error.hint] if error.hint else [])
        _list(body, "Details", list(error.details[:_MOST_DETAILS]))
    return None


def _list(body: ET.Element, title: str, lines: Sequence[str]) -> None:
    if lines:
        add(body, "h2", title)
        points = add(body, "ul")
        for line in lines:
            add(points, "li", line[:_LONGEST])


def _table(body: ET.Element, rows: list[Interval]) -> None:
    table = add(body, "table")
    head = add(add(table, "thead"), "tr")
    for title in ("where", "what"):
        add(head, "th", title)
    for title in ("begins, ms", "takes, ms"):
        add(head, "th", title, class_="ms")
    lines = add(table, "tbody")
    for one in sorted(rows, key=lambda one: one.start_ms):
        line = add(lines, "tr")
        for text in (one.role, one.name):
            add(line, "td", text)
        for ms in (one.start_ms, one.duration_ms):
            add(line, "td", f"{ms:.3f}", class_="ms")
