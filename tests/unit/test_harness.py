"""The harness itself: what it takes for an answer, and that it does not wait for ever."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from harness.left import UNEXPECTED, everybody
from harness.migrate import ran
from harness.wait import TooLate, eventually

from migrate.events import line
from migrate.report import observer as ui
from migrate.report.report import Outcome, Report


def told(tell: Callable[[ui.Observer], None]) -> str:
    """The last line that is written of it."""
    out = io.StringIO()
    observer = ui.choose(out, io.StringIO(), json_lines=True, verbose=False)
    tell(observer)
    observer.finished(Report(outcome=Outcome.UNTOUCHED, notes=["done"]))
    return out.getvalue().splitlines()[0]


REPORT = told(lambda observer: None)
NOTE = told(lambda observer: observer.note("x"))


def test_the_waiter_gives_what_it_found_and_does_not_wait_for_ever() -> None:
    counted = iter(range(10))
    assert eventually(lambda: next(counted), "counted", 5) == 1
    told = []
    with pytest.raises(TooLate, match=r"^not within 0.02 s: 3 looks$"):
        eventually(lambda: told.append("look"), lambda: "3 looks", 0.02)
    assert told


def test_an_event_beside_the_table_is_found_in_a_log() -> None:
    lines = [
        line.to_json(
            line.Event(0, 0, "0123456789ab", "origin", "migrate", 7, "dump", "", event, {"what": "x"})
        )
        for event in ("unexpected", "began")
    ]
    assert [UNEXPECTED in one.decode() for one in lines] == [True, False]


@pytest.mark.parametrize(
    "output",
    [f"{REPORT}\n{NOTE}\n", f"{REPORT}\n{REPORT}\n", f"{NOTE}\n", "", f"Traceback\n{REPORT}\n"],
    ids=["not the last", "two", "none", "nothing", "traceback"],
)
def test_a_run_has_one_report_which_comes_last(output: str) -> None:
    with pytest.raises(AssertionError):
        ran(0, output, "")
    assert ran(0, f"{NOTE}\n{REPORT}\n", "").said == ["done"]


def test_who_is_on_a_host() -> None:
    lines = [
        "    1     0 Ss   /usr/bin/python3 -I -S /x/init.py hold",
        "    2     0 S    [kthreadd]",
        "    7     1 Z    [sh] <defunct>",
        "   99     7 R    ps -e -ww -o pid=,ppid=,stat=,args=",
    ]
    assert {pid: parent for pid, (parent, _) in everybody(lines).items()} == {1: 0, 7: 1}
