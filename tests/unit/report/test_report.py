"""Durations, outcomes and exit statuses; the clock is the test's."""

from __future__ import annotations

import json

import pytest

from migrate import problems
from migrate.errors import CriuError, Ended, Exit, MigrateError, Problem, Reason, Refused, UsageError
from migrate.link.clock import Offset
from migrate.pb.session_pb2 import PhaseTime
from migrate.report.interval import Interval
from migrate.report.report import Outcome, Report, Sent, Trace
from migrate.report.text import clean, render
from migrate.report.timeline import Span, Timeline, Times
from tcpcp.errors import IsolationError


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def moved() -> Report:
    return Report(
        outcome=Outcome.MOVED,
        pid=4711,
        host="destination",
        destination_pid=4711,
        sent=Sent(connections=3, image_bytes=5 << 20, gap_packets=2, gap_dropped=1),
        times=Times(
            frozen_ms=84.25,
            isolated_ms=51.0,
            total_ms=612.0,
            phases=(
                Interval("origin", "check", 0.0, 120.0),
                Interval("origin", "dump", 200.0, 17.5),
                Interval("destination", "restore", 300.0, 9.0),
            ),
        ),
        where="runs on destination as PID 4711",
    )


def test_phases_of_both_hosts(clock: Clock) -> None:
    timeline = Timeline(clock)
    timeline.begin("check")
    clock.now_s += 0.5
    assert timeline.end("check") == pytest.approx(500)
    said = [PhaseTime(name="restore", start_ns=int(205.1e9), duration_ns=7_000_000)]
    timeline.hear(said, Offset(int(105e9), 1000))
    with pytest.raises(ValueError, match="x"), timeline.phase("dump"):
        clock.now_s += 0.25
        raise ValueError("x")
    timeline.begin("dump")
    clock.now_s += 0.25
    timeline.end("dump")
    assert timeline.end("never begun") == 0
    assert timeline.times().phases_ms == {
        "origin": {"check": pytest.approx(500), "dump": pytest.approx(500)},
        "destination": {"restore": 7.0},
    }
    starts = {(one.role, one.name): one.start_ms for one in timeline.phases}
    assert starts["origin", "check"] == 0
    assert starts["destination", "restore"] == pytest.approx(100)
    assert timeline.total_ms() == pytest.approx(1000)


def test_spans_add_up_and_count_until_now(clock: Clock) -> None:
    timeline = Timeline(clock)
    timeline.stop(Span.FROZEN)
    for _ in range(2):
        timeline.start(Span.FROZEN)
        clock.now_s += 0.01
        timeline.start(Span.FROZEN)  # within: no effect
        timeline.stop(Span.FROZEN)
        clock.now_s += 1
    timeline.start(Span.ISOLATED)
    clock.now_s += 0.002
    report = Report(outcome=Outcome.ROLLED_BACK)
    report.times = timeline.times()
    assert report.times.frozen_ms == pytest.approx(20)
    assert report.times.isolated_ms == pytest.approx(2)


@pytest.mark.parametrize(
    ("outcome", "error", "status"),
    [
        (Outcome.MOVED, None, Exit.MOVED),
        (Outcome.UNTOUCHED, None, Exit.MOVED),
        (Outcome.UNTOUCHED, CriuError("x"), Exit.UNTOUCHED),
        (Outcome.UNTOUCHED, UsageError("x"), Exit.USAGE),
        (Outcome.UNTOUCHED, OSError(2, "No such file"), Exit.UNTOUCHED),
        (Outcome.ROLLED_BACK, CriuError("x"), Exit.ROLLED_BACK),
        (Outcome.ROLLED_BACK, IsolationError("x"), Exit.ROLLED_BACK),
        (Outcome.ROLLED_BACK, KeyError("x"), Exit.BUG),
        (Outcome.IN_DOUBT, MigrateError("x"), Exit.IN_DOUBT),
        (Outcome.ENDED, Ended("x"), Exit.ENDED),
        (Outcome.ENDED, KeyError("x"), Exit.BUG),
    ],
)
def test_exit_status(outcome: Outcome, error: Exception | None, status: Exit) -> None:
    report = Report(outcome=outcome)
    if error is not None:
        report.fail(error)
    assert report.exit_status is status


def test_exit_statuses_are_unique() -> None:
    assert len({int(status) for status in Exit}) == len(Exit.__members__)


def test_first_error_counts_and_keeps_its_notes() -> None:
    first = CriuError("cannot dump", hint="h", details=["log"])
    first.stamp("dump", "origin")
    first.add_note("undo of x failed")
    report = Report(outcome=Outcome.ROLLED_BACK)
    report.fail(first)
    report.fail(MigrateError("later"))
    assert report.error == Problem(
        "CriuError", "cannot dump", "h", ("log", "undo of x failed"), "dump", "origin"
    )


def test_a_bug_keeps_its_traceback() -> None:
    try:
        _ = dict[str, int]()["pid"]
    except KeyError as error:
        found = problems.of(error)
    assert found.bug
    assert any("test_a_bug_keeps_its_traceback" in line for line in found.details)


def test_json_has_what_programs_need() -> None:
    line = moved().as_json()
    assert json.loads(json.dumps(line)) == line
    wanted = {
        "event": "report",
        "outcome": "MOVED",
        "exit_status": 0,
        "frozen_ms": 84.25,
        "isolated_ms": 51.0,
        "connections": 3,
        "image_bytes": 5 << 20,
        "destination_pid": 4711,
        "error": None,
    }
    assert {key: line[key] for key in wanted} == wanted


def test_json_of_a_refusal_lists_all_reasons() -> None:
    report = Report(outcome=Outcome.UNTOUCHED, pid=1)
    report.fail(Refused([Reason("a", "origin", "t1", "r1"), Reason("b", "destination", "t2", "r2")]))
    assert report.as_json()["reasons"] == [
        {"code": "a", "role": "origin", "text": "t1", "remedy": "r1", "pids": []},
        {"code": "b", "role": "destination", "text": "t2", "remedy": "r2", "pids": []},
    ]


def test_text_of_a_move() -> None:
    assert render(moved()) == [
        "MOVED: runs on destination as PID 4711",
        "",
        "  frozen           84.2 ms",
        "  isolated         51.0 ms",
        "  total           612.0 ms",
        "  connections            3",
        "  images           5.0 MiB",
        "  gap packets    2, 1 lost",
        "",
        "  phase           origin  destination",
        "  check         120.0 ms",
        "  dump           17.5 ms",
        "  restore                      9.0 ms",
    ]


def test_text_of_a_refusal_names_hosts_and_remedies() -> None:
    report = Report(outcome=Outcome.UNTOUCHED, pid=7, where="runs on origin as PID 7")
    report.fail(
        Refused([Reason("a", "origin", "It is 1.", "Do 1."), Reason("b", "destination", "It is 2.", "")])
    )
    assert render(report) == [
        "UNTOUCHED: runs on origin as PID 7",
        "",
        "2 reasons not to begin:",
        "  origin       It is 1.",
        "               -> Do 1.",
        "  destination  It is 2.",
    ]
    report.host = "root@web2"
    assert render(report)[3:] == [
        "  origin                 It is 1.",
        "                         -> Do 1.",
        "  destination root@web2  It is 2.",
    ]
    report.trace.hosts["origin"] = "web1"
    assert "  origin web1            It is 1." in render(report)


def test_text_of_an_error_says_what_where_and_what_to_do() -> None:
    report = Report(
        outcome=Outcome.IN_DOUBT, pid=7, where="in doubt: frozen on origin", instructions=["Look there."]
    )
    report.error = Problem("CriuError", "it died", "Free memory.", ("L",), "restore", "destination")
    lines = render(report)
    assert lines[0] == "IN_DOUBT: PID 7 in doubt: frozen on origin"
    assert "  failed  restore on destination: it died" in lines
    assert "  to do   Free memory." in lines
    assert lines[-2:] == ["What to do now:", "  Look there."]
    assert render(report, verbose=True)[-2:] == ["Details:", "  L"]
    report.host = "web2"
    assert "  failed  restore on destination web2: it died" in render(report)


def test_text_of_a_check_that_passed_and_of_a_recovery() -> None:
    passed = Report(outcome=Outcome.UNTOUCHED, pid=7, host="h")
    assert render(passed) == ["READY: PID 7 can be moved to h"]
    recovery = Report(outcome=Outcome.UNTOUCHED, notes=["nothing was left here"])
    assert render(recovery)[-1] == "  nothing was left here"


def test_text_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb c\\x202e"
    report = Report(outcome=Outcome.UNTOUCHED)
    report.error = Problem("MigrateError", "\x1b]0;gone\x07", host="destination")
    assert "\x1b" not in "".join(render(report))


def test_after_a_failure_the_user_is_told_where_the_logs_are() -> None:
    path = "/var/log/migrate/0123456789ab"
    report = Report(outcome=Outcome.ROLLED_BACK, host="web2", where="runs on origin as PID 7")
    report.trace = Trace(id=path[-12:], logs={"origin": path, "destination": path})
    assert not any(path in line for line in render(report))
    report.fail(MigrateError("no"))
    assert [line for line in render(report) if path in line] == [
        f"  log     {path} on origin",
        f"  log     {path} on destination web2",
    ]
    assert (report.as_json()["id"], report.as_json()["logs"]) == ("0123456789ab", report.trace.logs)
