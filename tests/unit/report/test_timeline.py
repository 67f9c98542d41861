"""The timeline of a migration: where things are drawn, what is escaped, and how the file is written."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from timeline_drawing import Shown, assert_self_contained, read

from migrate.errors import Problem, Reason, Refused, UsageError
from migrate.link.clock import Offset
from migrate.report import file, html
from migrate.report import svg as timeline_svg
from migrate.report.interval import Interval
from migrate.report.panel import Scale, milliseconds
from migrate.report.report import Outcome, Report, Sent, Trace
from migrate.report.timeline import Times

EVIL = "</text><script>alert('1')</script>&amp;\"]]>\x00\x1b[2J\ufffe\ud800"


def moved() -> Report:
    return Report(
        outcome=Outcome.MOVED,
        pid=4711,
        host="web2",
        destination_pid=4711,
        sent=Sent(connections=3, image_bytes=5 << 20),
        times=Times(
            frozen_ms=80.0,
            isolated_ms=50.0,
            total_ms=1000.0,
            phases=(
                Interval("origin", "connect", 0.0, 500.0),
                Interval("origin", "freeze", 790.0, 20.0),
                Interval("origin", "restore", 840.0, 40.0),
                Interval("destination", "build", 845.0, 30.0),
                Interval("origin", "release", 880.0, 100.0),
            ),
            spans=(Interval("process", "isolated", 830.0, 50.0), Interval("process", "frozen", 800.0, 80.0)),
            offset=Offset(10**12, 250_000),
        ),
        where="runs on web2 as PID 4711",
    )


def svg(report: Report, origin: str = "web1") -> str:
    return timeline_svg.to_text(timeline_svg.draw(report, origin))


def axis(shown: Shown, panel: int) -> tuple[float, float]:
    """Drawing units for each ms, and where the axis has its 0, from the labels alone."""
    ticks = shown.of_class("tick", panel)
    first, last = ticks[0], ticks[-1]
    scale = (last.number("x") - first.number("x")) / (float(last.text) - float(first.text))
    return scale, first.number("x") - scale * float(first.text)


def test_bars_and_bands_are_where_the_axis_says() -> None:
    report = moved()
    shown = read(svg(report))
    for panel, zero_ms in enumerate((0.0, 800.0)):
        scale, zero = axis(shown, panel)
        assert len(shown.of_class("tick", panel)) in range(4, 12)
        begin, end = (shown.panels[panel][0].number(f"data-{edge}-ms") for edge in ("begin", "end"))
        for kind in ("phase", "span"):
            for bar in shown.of_class(kind, panel):
                left = zero + scale * (max(bar.number("data-start-ms"), begin) - zero_ms)
                right = zero + scale * (min(bar.end_ms, end) - zero_ms)
                assert bar.number("x") == pytest.approx(left, abs=0.02)
                assert bar.number("width") == pytest.approx(max(right - left, 1.5), abs=0.02)


def test_both_panels_show_what_belongs_there() -> None:
    shown = read(svg(moved()))
    names = [[bar.attributes["data-name"] for bar in shown.of_class("phase", n)] for n in (0, 1)]
    assert names == [["connect", "freeze", "restore", "release", "build"], ["freeze", "restore", "build"]]
    for panel in (0, 1):
        spans = [band.attributes["data-name"] for band in shown.of_class("span", panel)]
        assert spans == ["frozen", "isolated"]
    texts = shown.texts()
    for text in ("MOVED", "runs on web2 as PID 4711", "1,000 ms", "80.0 ms", "50.0 ms", "3", "5.0 MiB"):
        assert text in texts
    assert texts.count("frozen 80.0 ms") == 2 and "± 0.25 ms" in texts
    assert any("web1 → web2" in text for text in texts)


@pytest.mark.parametrize("draw", [svg, lambda report: html.page(report, "web1")])
def test_what_comes_from_outside_is_text(draw: object) -> None:
    report = moved()
    report.host, report.where = EVIL, EVIL * 3
    report.notes, report.instructions = [EVIL], [EVIL * 1000]
    more = (*report.times.phases, Interval("destination", EVIL, 1.0, 1.0))
    report.times = dataclasses.replace(report.times, phases=more)
    report.error = Problem("CriuError", EVIL, phase=EVIL, host=EVIL)
    text = draw(report)  # type: ignore[operator]
    assert_self_contained(text)
    assert len(text) < 60_000
    assert any("<script>" in one.text for one in read(text).elements)


def test_the_page_has_the_drawing_and_a_table() -> None:
    report = moved()
    report.notes = ["a note"]
    text = html.page(report, "web1")
    shown = read(text)
    assert text.startswith("<!DOCTYPE html>") and len(shown.panels) == 2
    cells = shown.texts("td")
    cells = cells[cells.index("origin") :]
    rows = [cells[at : at + 4] for at in range(0, len(cells), 4)]
    assert rows[0] == ["origin", "connect", "0.000", "500.000"]
    assert ["destination", "build", "845.000", "30.000"] in rows
    assert ["process", "frozen", "800.000", "80.000"] in rows
    assert len(rows) == 7 and "a note" in shown.texts("li")


def test_the_page_says_what_and_why() -> None:
    report = moved()
    report.outcome, report.trace = (
        Outcome.ROLLED_BACK,
        Trace(id="0123456789ab", began="2026-11-28T06:42:44.123456Z"),
    )
    report.trace.program, report.trace.addresses = "nginx", ["10.0.0.1", "fd00::1"]
    report.trace.logs = {"origin": "/var/log/migrate/0123456789ab"}
    report.error = Problem("CriuError", "it died", "Try again.", ("line 1",), "restore", "destination")
    shown = read(html.page(report, "web1"))
    for told in (
        report.trace.began,
        "nginx (PID 4711)",
        "web1",
        "10.0.0.1, fd00::1",
        *report.trace.logs.values(),
    ):
        assert told in shown.texts("td"), told
    assert "restore on destination web2: it died" in shown.texts("p")
    assert {"Try again.", "line 1"} <= set(shown.texts("li"))


def test_the_page_has_all_reasons_of_a_refusal() -> None:
    report = Report(outcome=Outcome.UNTOUCHED, pid=7, host="web2")
    report.fail(Refused([Reason("a", "origin", "this", "Do."), Reason("b", "destination", "that", "Don't.")]))
    shown = read(html.page(report, "web1"))
    assert shown.texts("li") == ["origin: this. Do.", "destination web2: that. Don't."]
    assert shown.panels == []  # nothing that could be drawn has happened


def test_outcomes_without_a_freeze() -> None:
    checked = Times(phases=(Interval("origin", "check", 0, 0),))
    for report in (
        Report(outcome=Outcome.UNTOUCHED, pid=7, host="h"),
        Report(outcome=Outcome.UNTOUCHED, pid=7, host="h", times=checked),
    ):
        assert len(read(svg(report)).panels) == 1
    report.error = Problem("CriuError", "it died", phase="restore", host="destination")
    assert "failed: restore on destination h: it died" in read(svg(report)).texts()


phases = st.builds(
    Interval,
    st.sampled_from(["origin", "destination"]),
    st.sampled_from(["a", "b", "c", "d"]),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
parts = st.builds(
    Interval,
    st.just("process"),
    st.sampled_from(["frozen", "isolated"]),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)


@settings(max_examples=60)
@given(st.lists(phases, max_size=20), st.lists(parts, max_size=4), st.floats(0, 1e6))
@example([], [Interval("process", "frozen", 0.0, 5e-324)], 0.0)
def test_whatever_was_measured_can_be_drawn(
    some: list[Interval], spans: list[Interval], total_ms: float
) -> None:
    times = Times(phases=tuple(some), spans=tuple(spans), total_ms=total_ms)
    report = Report(outcome=Outcome.ROLLED_BACK, times=times)
    shown = read(svg(report))
    assert len(shown.of_class("phase", 0)) == len(some)
    width, height = map(float, shown.elements[0].attributes["viewBox"].split()[2:])
    for one in shown.elements:
        if one.tag in ("rect", "text") and "x" in one.attributes:
            assert 0 <= one.number("x") <= width and 0 <= one.number("y") <= height
            assert one.number("x") + float(one.attributes.get("width", 0)) <= width + 1


@given(st.floats(0, 1e7), st.floats(1e-3, 1e7))
def test_ticks_are_round_and_few(begin_ms: float, length_ms: float) -> None:
    ticks = Scale(begin_ms, begin_ms + length_ms).ticks() if begin_ms + length_ms > begin_ms else [0.0]
    assert 1 <= len(ticks) <= 12


def test_numbers_for_people() -> None:
    shown = [milliseconds(ms) for ms in (0.0, 0.126, 9.994, 9.996, 99.96, 1234.5)]
    assert shown == ["0.00 ms", "0.13 ms", "9.99 ms", "10.0 ms", "100 ms", "1,234 ms"]


# --- the file ---------------------------------------------------------------------------------------------


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.mark.parametrize("name", ["t.svg", "t.html"])
def test_the_file_is_replaced_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    file.check(str(path))
    assert path.read_text() == "old" and names(tmp_path) == [name]
    before = os.umask(0o027)
    try:
        file.write(str(path), moved())
    finally:
        os.umask(before)
    assert len(read(path.read_text()).panels) == 2
    assert names(tmp_path) == [name] and path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other's")
    (tmp_path / "t.svg").symlink_to("other")
    file.write(str(tmp_path / "t.svg"), moved())
    assert (tmp_path / "other").read_text() == "other's"


def test_nothing_is_left_when_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "t.svg").mkdir()
    with pytest.raises(OSError):
        file.write(str(tmp_path / "t.svg"), moved())
    assert names(tmp_path) == ["t.svg"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.png", "ends in .html or .svg"),
        ("t", "ends in .html or .svg"),
        (".svg", "ends in .html or .svg"),
        ("no/t.svg", "cannot be written to: No such file"),
        ("file/t.svg", "cannot be written to: Not a directory"),
        ("is.svg", "that is there, and no file"),
    ],
)
def test_refused_before_anything_happens(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "is.svg").mkdir()
    with pytest.raises(UsageError, match=text):
        file.check(str(tmp_path / name))
    with pytest.raises(UsageError, match="cannot be written to"):
        file.check("/proc/t.svg")
