"""What is written where; and that nothing which happens to the terminal reaches the driver."""

from __future__ import annotations

import io
import os
import re
import threading
import time

import pytest
from harness import json_lines

from migrate.errors import CriuError
from migrate.report import observer as ui
from migrate.report.report import Outcome, Report

DEADLINE_S = 10.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(observer: ui.Observer, report: Report) -> None:
    observer.named(report.trace.id)
    observer.phase_begin("dump", "origin")
    observer.progress(5, None)
    observer.progress(10, 20)
    observer.phase_end("dump")
    observer.note("stopped\x1b at FROZEN")
    observer.finished(report)


@pytest.fixture
def report() -> Report:
    report = Report(outcome=Outcome.ROLLED_BACK, pid=7, where="runs on origin as PID 7")
    report.trace.id = "0123456789ab"
    error = CriuError("no", details=["log line"])
    error.stamp("dump", "origin")
    report.fail(error)
    return report


def test_plain(report: Report) -> None:
    out, err = io.StringIO(), io.StringIO()
    tell(ui.choose(out, err, json_lines=False, verbose=False), report)
    assert err.getvalue() == "migrate: origin: dump\nmigrate: stopped\\x1b at FROZEN\n"
    assert out.getvalue() == "ROLLED_BACK: runs on origin as PID 7\n\n  failed  dump on origin: no\n"


def test_plain_verbose_shows_the_log(report: Report) -> None:
    out = io.StringIO()
    tell(ui.choose(out, io.StringIO(), json_lines=False, verbose=True), report)
    assert out.getvalue().endswith("Details:\n  log line\n")


def test_json_lines_end_with_the_report(report: Report) -> None:
    out, err = io.StringIO(), io.StringIO()
    tell(ui.choose(out, err, json_lines=True, verbose=False), report)
    lines = json_lines.read(out.getvalue())
    assert [line["event"] for line in lines] == ["phase", "progress", "progress", "phase", "note", "report"]
    assert (lines[2]["bytes_sent"], lines[2]["bytes_total"]) == (10, 20)
    assert lines[-1]["outcome"] == "ROLLED_BACK"
    assert {(line["schema"], line["id"]) for line in lines} == {(ui.SCHEMA, report.trace.id)}
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    assert err.getvalue() == ""


def test_rich_draws_on_the_terminal_and_reports_on_stdout(report: Report) -> None:
    out, err = io.StringIO(), Terminal()
    tell(ui.choose(out, err, json_lines=False, verbose=False), report)
    assert "stopped\\x1b at FROZEN" in err.getvalue()
    assert out.getvalue().startswith("ROLLED_BACK: runs on origin as PID 7\n")
    coloured = Terminal()
    tell(ui.choose(coloured, Terminal(), json_lines=False, verbose=False), report)
    assert coloured.getvalue().startswith("\x1b[1;33mROLLED_BACK")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_anywhere(name: str, value: str, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    out, err = Terminal(), Terminal()
    tell(ui.choose(out, err, json_lines=False, verbose=False), report)
    assert "\x1b" not in out.getvalue()
    assert not re.search(r"\x1b\[[0-9;]*m", err.getvalue().replace("\x1b[0m", ""))


def test_the_bar_has_the_units_of_the_report(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal()
    observer = ui.choose(io.StringIO(), err, json_lines=False, verbose=False)
    observer.progress(3 << 20, 5 << 20)
    observer.finished(report)
    assert "3.0/5.0 MiB" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err.getvalue())


@pytest.mark.parametrize("json_lines", [False, True])
def test_a_broken_pipe_is_ignored(json_lines: bool, report: Report) -> None:
    r, w = os.pipe()
    os.close(r)
    broken = os.fdopen(w, "w")
    tell(ui.choose(broken, broken, json_lines=json_lines, verbose=False), report)
    with pytest.raises(BrokenPipeError):
        broken.close()


@pytest.mark.parametrize("json_lines", [False, True])
def test_a_pipe_that_nobody_reads_holds_up_nothing(json_lines: bool, report: Report) -> None:
    r, w = os.pipe()
    os.set_blocking(w, False)
    while True:
        try:
            os.write(w, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(w, True)
    with os.fdopen(w, "w") as full:
        observer = ui.choose(full, full, json_lines=json_lines, verbose=False)
        began = time.monotonic()
        for _ in range(5000):
            observer.phase_begin("dump", "origin")
        assert time.monotonic() - began < 2
        drained = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(r, 1 << 16), b"")])
        drained.start()
        observer.finished(report)
    drained.join(DEADLINE_S)
    os.close(r)
