"""A migration as one SVG: what happened when, on both hosts, on the origin's clock. Pure: report in, XML out.

The drawing contains everything it needs: no script, no font, nothing to be fetched. Hosts, messages and the
destination's phases come from outside; :mod:`xml.etree.ElementTree` escapes them and they are cut to fit.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from migrate.report.panel import (
    FONT,
    GREY,
    INK,
    MARGIN,
    PLOT_LEFT,
    PLOT_RIGHT,
    SMALL,
    WIDTH,
    Host,
    Panel,
    Scale,
    add,
    milliseconds,
    short,
)
from migrate.report.report import Report
from migrate.report.text import headline
from migrate.report.timeline import Span
from migrate.units import size

_FONTS = "system-ui, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
_BADGES = {"MOVED": "#2f855a", "READY": "#2f855a", "IN_DOUBT": "#c53030"}
_OTHER_BADGE = "#b7791f"
_LINE_CHARACTERS = 118
#: Nothing shorter is drawn: no clock of ours tells it from nothing.
_LEAST_MS = 0.001
#: How much of the frozen time is shown before and after it.
_AROUND = 0.03


def draw(report: Report, origin_name: str) -> ET.Element:
    """Return the drawing of *report*.

    :param origin_name: of the host that we run on.
    """
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
    svg.attrib.update({"font-family": _FONTS, "font-size": f"{FONT:g}", "fill": INK})
    add(svg, "title", short(headline(report), _LINE_CHARACTERS))
    paper = add(svg, "rect", width=WIDTH, fill="#ffffff")
    y = _head(svg, report, origin_name)
    y = _panels(svg, y, report, _hosts(report, origin_name))
    y = _foot(svg, y, report)
    paper.set("height", f"{y:g}")
    svg.set("viewBox", f"0 0 {WIDTH:g} {y:g}")
    return svg


def facts(report: Report) -> list[tuple[str, str]]:
    """Return the figures of *report* with their names."""
    found = [("in all", milliseconds(report.times.total_ms))]
    if report.times.frozen_ms:
        found.append(("frozen", milliseconds(report.times.frozen_ms)))
    if report.times.isolated_ms:
        found.append(("isolated", milliseconds(report.times.isolated_ms)))
    if report.times.frozen_ms:
        found += [("connections", str(report.sent.connections)), ("sent", size(report.sent.image_bytes))]
    return found


def _head(svg: ET.Element, report: Report, origin_name: str) -> float:
    """Outcome, who and where, what went wrong, and the figures."""
    outcome, _, where = headline(report).partition(":")
    width = 9.5 * len(outcome) + 20
    colour = _BADGES.get(outcome, _OTHER_BADGE)
    add(svg, "rect", x=MARGIN, y=22, width=width, height=26, rx=4, fill=colour)
    badge = {"fill": "#ffffff", "font_weight": "700", "text_anchor": "middle"}
    add(svg, "text", outcome, x=MARGIN + width / 2, y=39.5, **badge)
    add(svg, "text", short(where.strip(), 80), x=MARGIN + width + 12, y=41, font_size=16)
    route = f"PID {report.pid}, {short(origin_name, 40)} \N{RIGHTWARDS ARROW} {short(report.host, 40)}"
    add(svg, "text", route, x=MARGIN, y=70, fill=GREY)
    y = 84.0
    if report.error is not None:
        place = f"{report.error.phase} on {report.host_of(report.error.host)}: " if report.error.phase else ""
        text = short(f"failed: {place}{report.error.text}", _LINE_CHARACTERS)
        add(svg, "text", text, x=MARGIN, y=y + 8, fill="#c53030")
        y += 22
    for number, (name, value) in enumerate(facts(report)):
        x = MARGIN + 150 * number
        add(svg, "text", value, x=x, y=y + 24, font_size=20, font_weight="600")
        add(svg, "text", name, x=x, y=y + 42, fill=GREY)
    return y + 70


def _hosts(report: Report, origin_name: str) -> list[Host]:
    hosts = [Host("origin", origin_name)]
    if any(one.role == "destination" for one in report.times.phases):
        hosts.append(Host("destination", report.host, _uncertainty(report)))
    return hosts


def _uncertainty(report: Report) -> str:
    if report.times.offset is None:
        return ""
    return f"\N{PLUS-MINUS SIGN} {milliseconds(report.times.offset.uncertainty_ns / 1e6)}"


def _panels(svg: ET.Element, y: float, report: Report, hosts: Sequence[Host]) -> float:
    """The whole, and below it the time in which the process was frozen, larger."""
    times = report.times
    end_ms = max([times.total_ms, _LEAST_MS, *(one.end_ms for one in [*times.phases, *times.spans])])
    begin_ms = min([0.0, *(one.start_ms for one in times.phases)])
    whole = Panel(svg, y, "The whole migration", "ms since it began", Scale(begin_ms, end_ms))
    y = whole.draw(hosts, times.phases, times.spans)
    frozen = [one for one in times.spans if one.name == Span.FROZEN]
    begin_ms = min((one.start_ms for one in frozen), default=0.0)
    end_ms = max((one.end_ms for one in frozen), default=0.0)
    if end_ms - begin_ms < _LEAST_MS:
        return y
    y += 40
    _lens(svg, whole, (begin_ms, end_ms), y)
    around_ms = _AROUND * (end_ms - begin_ms)
    scale = Scale(begin_ms - around_ms, end_ms + around_ms, zero_ms=begin_ms)
    near = [one for one in times.phases if one.end_ms > begin_ms and one.start_ms < end_ms]
    closer = Panel(svg, y, "While the process was frozen", "ms since the freeze", scale)
    return closer.draw(hosts, near, times.spans)


def _lens(svg: ET.Element, whole: Panel, frozen: tuple[float, float], y: float) -> None:
    """Show of which part of the panel above the one below is an enlargement."""
    left, right = (whole.scale.x(ms) for ms in frozen)
    top = whole.plot_bottom
    d = f"M{left:.2f} {top:g}H{max(right, left + 1):.2f}L{PLOT_RIGHT:g} {y + 20:g}H{PLOT_LEFT:g}Z"
    lens = add(svg, "path", d=d, fill="#f3f7fc")
    svg.remove(lens)
    svg.insert(2, lens)  # on the paper, behind everything else


def _foot(svg: ET.Element, y: float, report: Report) -> float:
    if report.times.offset is None:
        return y + 14
    text = (
        "Both hosts on the origin's clock; the destination's phases may be off by"
        f" {_uncertainty(report)}, half of the shortest round trip between the two."
    )
    foot = add(svg, "text", text, x=MARGIN, y=y + 18, fill=GREY, font_size=SMALL)
    foot.set("data-offset-ns", str(report.times.offset.ns))
    foot.set("data-uncertainty-ns", str(report.times.offset.uncertainty_ns))
    return y + 34


def to_text(svg: ET.Element) -> str:
    """Return *svg* as a file of its own, a line for each element."""
    ET.indent(svg, " ")
    return ET.tostring(svg, encoding="unicode") + "\n"
