"""`migrate --report` after real moves: the file, read by expat, says what the report says, on one clock.

The hosts of the lab have one clock, so the true offset between them is 0, which migrate does not know.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from harness.hosts import connect, spawn, ss
from harness.left import processes
from harness.migrate import move, run_migrate
from harness.wait import eventually
from harness.workloads import WORKLOADS
from timeline_drawing import Element, Shown, assert_self_contained, read

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

NUMBERED = str(WORKLOADS / "numbered.py")
PORT = 7300
#: The origin's phases in which it waits for the destination's.
WAITS = {"prepare": {"prepare"}, "restore": {"verify", "compile", "hold", "build", "finish"}}
WAITS |= {"switch": {"switch"}}


def start(lab: Lab) -> int:
    origin = lab.hosts["origin"]
    pid = spawn(origin, [sys.executable, NUMBERED, "serve", str(PORT)])
    eventually(lambda: len(ss(origin, "-l", f"sport = {PORT}")) == 2, "the server listens")
    return pid


def bars(shown: Shown, role: str) -> dict[str, Element]:
    return {
        bar.attributes["data-name"]: bar
        for bar in shown.of_class("phase", 0)
        if bar.attributes["data-role"] == role
    }


def offset_ms(shown: Shown) -> tuple[float, float]:
    """What was taken for the offset between the clocks, and its uncertainty."""
    foot = next(one for one in shown.elements if "data-uncertainty-ns" in one.attributes)
    return foot.number("data-offset-ns") / 1e6, foot.number("data-uncertainty-ns") / 1e6


def assert_true(shown: Shown, report: dict[str, Any]) -> None:
    """All phases are there, as long as reported, and each where it can have been."""
    origin, destination = bars(shown, "origin"), bars(shown, "destination")
    for role, found in (("origin", origin), ("destination", destination)):
        durations = {name: bar.number("data-duration-ms") for name, bar in found.items()}
        assert durations == pytest.approx(report["phases_ms"][role], abs=0.002)
    offset, uncertain = offset_ms(shown)
    assert abs(offset) <= uncertain < 50
    for waiting, names in WAITS.items():
        for name in names:
            one, around = destination[name], origin[waiting]
            assert one.number("data-start-ms") >= around.number("data-start-ms") - uncertain, name
            assert one.end_ms <= around.end_ms + uncertain, name
    sent_ms = origin["commit"].number("data-start-ms")
    assert destination["activate"].number("data-start-ms") >= sent_ms - uncertain
    assert destination["activate"].end_ms <= origin["activate"].end_ms + uncertain
    spans = {one.attributes["data-name"]: one for one in shown.of_class("span", 0)}
    for name in ("dump", "isolate", "stream", "restore", "switch", "commit"):
        assert origin[name].number("data-start-ms") >= spans["frozen"].number("data-start-ms")
        assert origin[name].end_ms <= spans["frozen"].end_ms
    for name in ("stream", "restore", "switch", "commit"):
        assert origin[name].number("data-start-ms") >= spans["isolated"].number("data-start-ms")
        assert origin[name].end_ms <= spans["isolated"].end_ms
    assert len(shown.panels) == 2


def test_a_timeline_of_a_move_there_and_back(lab: Lab) -> None:
    pid = start(lab)
    with connect(lab.hosts["peer"], lab.service.ipv4, PORT):
        for where, suffix in (("origin", "svg"), ("destination", "html")):
            moved = move(lab, pid, "--report", f"/root/timeline.{suffix}", start=where)
            path = Path(lab.hosts[where].root) / f"root/timeline.{suffix}"
            text = path.read_text()
            path.unlink()
            assert len(text) < 60_000
            assert_self_contained(text)
            assert_true(read(text), moved.report)


def test_a_timeline_of_a_move_that_fails_on_the_destination(lab: Lab) -> None:
    """Where it has been frozen and runs on at the origin; what the destination did is shown all the same."""
    pid = start(lab)
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    script = "/root/broken-agent"
    # An agent as installed, but for one call that fails as in a full file system.
    code = "import migrate.destination.prepared as p, migrate.destination.agent as a, sys;"
    code += "p.Prepared._build = lambda self: (_ for _ in ()).throw(OSError(28, 'No space left'));"
    code += "sys.exit(a.main([]))"
    (Path(destination.root) / script[1:]).write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    (Path(destination.root) / script[1:]).chmod(0o755)
    path = Path(origin.root) / "root/timeline.svg"
    words = ["--no-address", "--agent", script, "--report", "/root/timeline.svg"]
    moved = run_migrate(origin, *words, str(pid), "destination")
    assert moved.report["outcome"] == "ROLLED_BACK" and pid in processes(origin)
    shown = read(path.read_text())
    path.unlink()
    (Path(destination.root) / script[1:]).unlink()
    assert set(bars(shown, "destination")) >= {"prepare", "verify", "compile", "hold", "build"}
    spans = {one.attributes["data-name"]: one for one in shown.of_class("span", 0)}
    settle = bars(shown, "origin")["settle"]
    assert settle.number("data-start-ms") < spans["frozen"].end_ms < settle.end_ms
    assert "ROLLED_BACK" in shown.texts()
    failed = [text for text in shown.texts() if text.startswith("failed: build on destination: ")]
    assert any("No space left" in text for text in failed)


def test_refused_before_anything_happens(lab: Lab) -> None:
    pid = start(lab)
    for file in ("/root/t.png", "/no/such/t.svg"):
        refused = run_migrate(lab.hosts["origin"], "--report", file, str(pid), "destination")
        assert refused.status == 2 and "--report" in refused.stderr
        assert refused.report["phases_ms"] == {}
