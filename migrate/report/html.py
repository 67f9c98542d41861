"""A migration's timeline as one page: the drawing, and its phases as a table. Pure.

The page is XML as well as HTML, and as self-contained as the drawing.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from migrate.report.interval import Interval
from migrate.report.panel import add, short
from migrate.report.report import Report
from migrate.report.svg import draw
from migrate.report.text import headline

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1e293b;max-width:1000px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em 1em;border-bottom:1px solid #e2e8f0;"
    "text-align:left}.ms{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:auto}"
)
_LONGEST = 1000


def page(report: Report, origin_name: str) -> str:
    """Return the page of *report*.

    :param origin_name: of the host that we run on.
    """
    html = ET.Element("html", {"lang": "en"})
    head = add(html, "head")
    add(head, "meta", charset="utf-8")
    add(head, "title", f"migrate: {short(headline(report), 100)}")
    add(head, "style", _STYLE)
    body = add(html, "body")
    body.append(draw(report, origin_name))
    for line in [*report.notes, *report.instructions]:
        add(body, "p", line[:_LONGEST])
    _table(body, [*report.times.spans, *report.times.phases])
    ET.indent(html, " ")
    return "<!DOCTYPE html>\n" + ET.tostring(html, encoding="unicode") + "\n"


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
