"""One panel of a migration's timeline: a row for each phase, bands for the spans, an axis in ms. Pure.

Every bar and band carries its times as ``data-`` attributes, in ms since the migration began, so that programs
need not measure the drawing.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from migrate.report.interval import Interval
from migrate.report.text import clean

WIDTH = 1000.0
#: Where the bars are; to the left the names of hosts and phases.
PLOT_LEFT, PLOT_RIGHT = 196.0, 972.0
MARGIN = 24.0
FONT, SMALL = 12.0, 11.0
GREY, LINE, INK = "#64748b", "#e2e8f0", "#1e293b"
COLOURS = {"origin": "#3b6fa8", "destination": "#2f9484"}
#: Of the band and of its name.
SPAN_COLOURS = {"frozen": ("#e1edfa", "#2b6cb0"), "isolated": ("#fdedd0", "#a9650f")}

_TITLE, _SPAN, _ROW, _BAR, _GAP, _AXIS = 26.0, 19.0, 19.0, 11.0, 9.0, 26.0
_TICKS = 10
_LEAST_BAR = 1.5
_NAME_CHARACTERS = 13
#: Width of a character beside its height: of a wide font, so that nothing overlaps in a narrow one.
_ASPECT = 0.62


@dataclass(frozen=True, slots=True)
class Host:
    """The rows of one host.

    :ivar name: of the host itself; from outside.
    :ivar note: a few words below it.
    """

    role: str
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """From ms since the migration began to places in the drawing.

    :ivar zero_ms: what the axis counts from.
    """

    begin_ms: float
    end_ms: float
    zero_ms: float = 0.0

    def x(self, ms: float) -> float:
        """Return the place of *ms*, within the plot in any case."""
        part = (ms - self.begin_ms) / (self.end_ms - self.begin_ms)
        return PLOT_LEFT + min(max(part, 0.0), 1.0) * (PLOT_RIGHT - PLOT_LEFT)

    def ticks(self) -> list[float]:
        """Return round numbers for the axis, ms since its zero."""
        least = (self.end_ms - self.begin_ms) / _TICKS
        power = 10.0 ** math.floor(math.log10(least))
        step = next(power * by for by in (1, 2, 5, 10, 20) if power * by >= least)
        first = math.ceil((self.begin_ms - self.zero_ms) / step - 1e-9)
        last = math.floor((self.end_ms - self.zero_ms) / step + 1e-9)
        return [step * number for number in range(first, last + 1)]


def add(parent: ET.Element, tag: str, text: str = "", /, **attributes: str | float) -> ET.Element:
    """Append an element: ``_`` in a name of an attribute is ``-``, a trailing one is nothing.

    Characters that XML does not have are written as their numbers.
    """
    written = {
        name.rstrip("_").replace("_", "-"): clean(value)
        if isinstance(value, str)
        else f"{round(value, 3):.10g}"
        for name, value in attributes.items()
    }
    element = ET.SubElement(parent, tag, written)
    if text:
        element.text = clean(text)
    return element


def milliseconds(ms: float) -> str:
    """Return a duration for people, in ms with three digits or all before the point."""
    digits = 2 if ms < 9.995 else 1 if ms < 99.95 else 0
    return f"{ms:,.{digits}f} ms"


def short(text: str, characters: int) -> str:
    """Return *text*, which may come from anywhere, as something to draw: printable, and not too long."""
    text = clean(text[: 4 * characters])
    return text if len(text) <= characters else text[: characters - 1] + "\N{HORIZONTAL ELLIPSIS}"


class Panel:
    """Draws into *svg* from *top* downward; :meth:`draw` once.

    :param axis: what the axis says.
    :ivar plot_top: of the area with the bars.
    """

    def __init__(self, svg: ET.Element, top: float, title: str, axis: str, scale: Scale) -> None:
        self.scale = scale
        self.plot_top = self._y = top + _TITLE
        self._group = add(svg, "g", class_="panel", data_begin_ms=scale.begin_ms, data_end_ms=scale.end_ms)
        heading = add(self._group, "text", title, x=MARGIN, y=top + 13, font_size=14, font_weight="600")
        add(heading, "tspan", axis, dx=12, fill=GREY, font_size=SMALL, font_weight="400")
        # Behind everything, in this order, whenever it is drawn.
        self._bands, self._grid, self._front = (add(self._group, "g") for _ in range(3))

    @property
    def plot_bottom(self) -> float:
        """Of the area with the bars, as far as there are any."""
        return self._y

    def draw(self, hosts: Sequence[Host], phases: Sequence[Interval], spans: Sequence[Interval]) -> float:
        """Draw a row for each name of a phase of each host, and a band for each part of a span.

        :return: where it ends.
        """
        # The inner span over the outer one.
        spans = sorted(spans, key=lambda one: one.start_ms)
        names = list(dict.fromkeys(one.name for one in spans))
        for name in names:
            self._span_label(name, [one for one in spans if one.name == name])
        rows_top = self._y
        for host in hosts:
            self._host(host, [one for one in phases if one.role == host.role])
        for row, name in enumerate(names):
            for one in spans:
                if one.name == name:
                    self._band(one, self.plot_top + _SPAN * row)
        self._axis(rows_top)
        return self.plot_bottom + _AXIS

    # --- spans -------------------------------------------------------------------------------------------

    def _span_label(self, name: str, parts: Sequence[Interval]) -> None:
        """Name a span and say how long it was, all of its parts, beside a line of its length."""
        text = f"{name} {milliseconds(sum(one.duration_ms for one in parts))}"
        begin, end = self.scale.x(parts[0].start_ms), self.scale.x(parts[-1].end_ms)
        colour = SPAN_COLOURS[name][1]
        self._beside(text, begin, end, self._y + 14, on=colour, fill=colour, font_weight="600")
        self._y += _SPAN

    def _band(self, part: Interval, top: float) -> None:
        left, right = self.scale.x(part.start_ms), self.scale.x(part.end_ms)
        fill, edge = SPAN_COLOURS[part.name]
        width = max(right - left, _LEAST_BAR)
        box = {"x": left, "y": top, "width": width, "height": self.plot_bottom - top}
        add(self._bands, "rect", class_="span", **_times(part), **box, fill=fill)
        add(self._bands, "rect", **(box | {"height": 2.5}), fill=edge)

    # --- phases ------------------------------------------------------------------------------------------

    def _host(self, host: Host, phases: Sequence[Interval]) -> None:
        names = list(dict.fromkeys(one.name for one in sorted(phases, key=lambda one: one.start_ms)))
        top = self._y + _GAP / 2
        add(self._front, "text", host.role, x=MARGIN, y=top + 14, fill=COLOURS[host.role], font_weight="600")
        notes = [short(host.name, _NAME_CHARACTERS), host.note]
        for number, note in enumerate(note for note in notes if note and note != host.role):
            add(self._front, "text", note, x=MARGIN, y=top + 29 + 14 * number, fill=GREY, font_size=SMALL)
        for row, name in enumerate(names):
            self._row(top + _ROW * row, name, [one for one in phases if one.name == name])
        self._y = top + _ROW * max(len(names), 3) + _GAP / 2
        add(self._grid, "path", d=f"M{MARGIN:g} {self._y:g}H{PLOT_RIGHT:g}", stroke=LINE)

    def _row(self, top: float, name: str, parts: Sequence[Interval]) -> None:
        middle = top + _ROW / 2
        add(self._front, "text", short(name, 24), x=PLOT_LEFT - 10, y=middle + 4, text_anchor="end")
        for one in parts:
            left, right = self.scale.x(one.start_ms), self.scale.x(one.end_ms)
            width = max(right - left, _LEAST_BAR)
            box = {"x": min(left, PLOT_RIGHT - width), "y": middle - _BAR / 2, "width": width, "height": _BAR}
            colour = COLOURS[one.role]
            add(self._front, "rect", class_="phase", data_role=one.role, **_times(one), **box, fill=colour)
        begin, end = self.scale.x(parts[0].start_ms), self.scale.x(parts[-1].end_ms)
        text = milliseconds(sum(one.duration_ms for one in parts))
        self._beside(text, begin, end, middle + 4, on="#ffffff", fill=INK)

    def _beside(self, text: str, begin: float, end: float, y: float, on: str, **attributes: str) -> None:
        """Write *text* right of what lies from *begin* to *end*, else left of it, else on it in colour *on*."""
        width = _ASPECT * FONT * len(text) + 6
        if end + width <= PLOT_RIGHT:
            add(self._front, "text", text, x=end + 6, y=y, **attributes)
        elif begin - width >= PLOT_LEFT:
            add(self._front, "text", text, x=begin - 6, y=y, text_anchor="end", **attributes)
        else:
            inside = attributes | {"fill": on}
            add(self._front, "text", text, x=begin + 6, y=y, **inside)

    # --- the axis ----------------------------------------------------------------------------------------

    def _axis(self, top: float) -> None:
        bottom = self.plot_bottom
        for tick in self.scale.ticks():
            x = self.scale.x(tick + self.scale.zero_ms)
            line = f"M{x:.2f} {top:g}V{bottom + 4:g}"
            add(self._grid, "path", d=line, stroke="#94a3b8", stroke_opacity=0.35)
            number = f"{round(tick, 9) + 0.0:.12g}"
            place: dict[str, str | float] = {"x": x, "y": bottom + 16, "text_anchor": "middle"}
            add(self._front, "text", number, class_="tick", **place, fill=GREY, font_size=SMALL)


def _times(one: Interval) -> dict[str, str | float]:
    return {"data_name": one.name, "data_start_ms": one.start_ms, "data_duration_ms": one.duration_ms}
