"""Several processes: all are looked at first, then each is moved; what ends it, and what is told in the end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from migrate import interrupt, problems
from migrate.errors import CriuError, Exit, MigrateError, Reason, Refused
from migrate.origin import several
from migrate.processes.chosen import Subject
from migrate.report import summary
from migrate.report.report import Outcome, Report
from migrate.request import Named, Request, SeveralRequest


@pytest.fixture
def pids() -> Iterator[list[int]]:
    found = [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    yield [one.pid for one in found]
    for one in found:
        one.kill()
        one.wait()


class Driver:
    """Ends as it is told: what *ends* has of a PID, else well. Notes what it was asked for."""

    def __init__(self, ends: dict[tuple[str, int], Callable[[], Report]] | None = None) -> None:
        self.ends, self.asked = ends or {}, list[tuple[str, int]]()

    def __call__(self, request: Request, subject: Subject | None, refused: Refused | None) -> Report:
        if refused is None and request.pid:
            assert subject is not None and (subject.pid, subject.ended()) == (request.pid, False)
        what = "check" if request.check else "move"
        self.asked.append((what, request.pid))
        ended = self.ends.get((what, request.pid))
        report = ended() if ended else Report(outcome=Outcome.UNTOUCHED if request.check else Outcome.MOVED)
        report.pid = request.pid
        if refused is not None:
            report.fail(refused)
        return report


def failed(outcome: Outcome, error: BaseException) -> Callable[[], Report]:
    def end() -> Report:
        report = Report(outcome=outcome)
        report.fail(error)
        return report

    return end


NO = failed(Outcome.UNTOUCHED, Refused([Reason("a", "origin", "It is traced", "Do it.")]))


def run(pids: list[int], driver: Driver, *, check: bool = False, keep_going: bool = False) -> list[str]:
    """Outcomes, and the exit status behind them."""
    each = tuple(Request(pid=pid, host="h", check=check) for pid in pids)
    with interrupt.handled():
        lines = several.run(SeveralRequest(each=each, keep_going=keep_going), driver)
    assert [one.pid for one in lines] == pids
    return [*(one.outcome for one in lines), summary.exit_status(lines).name]


def test_all_are_looked_at_and_then_moved_in_order(pids: list[int]) -> None:
    driver = Driver()
    assert run(pids, driver) == ["MOVED"] * 4
    assert driver.asked == [*(("check", pid) for pid in pids), *(("move", pid) for pid in pids)]
    driver = Driver()
    assert run(pids, driver, check=True) == ["READY"] * 3 + ["MOVED"]
    assert driver.asked == [("check", pid) for pid in pids]


def test_none_is_touched_if_one_is_refused_unless_it_is_to_go_on(pids: list[int]) -> None:
    driver = Driver({("check", pids[1]): NO})
    assert run(pids, driver) == ["not begun", "UNTOUCHED", "not begun", "UNTOUCHED"]
    assert driver.asked == [("check", pid) for pid in pids]
    assert run(pids, driver, keep_going=True) == ["MOVED", "UNTOUCHED", "MOVED", "UNTOUCHED"]


def test_one_that_was_not_moved_ends_it_unless_it_is_to_go_on(pids: list[int]) -> None:
    driver = Driver({("move", pids[0]): failed(Outcome.ROLLED_BACK, CriuError("x"))})
    assert run(pids, driver) == ["ROLLED_BACK", "not begun", "not begun", "ROLLED_BACK"]
    assert run(pids, driver, keep_going=True) == ["ROLLED_BACK", "MOVED", "MOVED", "ROLLED_BACK"]


@pytest.mark.parametrize(
    ("end", "outcome", "status"),
    [
        (failed(Outcome.IN_DOUBT, MigrateError("x")), "IN_DOUBT", "IN_DOUBT"),
        (failed(Outcome.ROLLED_BACK, KeyError("x")), "ROLLED_BACK", "BUG"),
    ],
)
def test_what_needs_a_person_always_ends_it(
    pids: list[int], end: Callable[[], Report], outcome: str, status: str
) -> None:
    driver = Driver({("move", pids[1]): end})
    assert run(pids, driver, keep_going=True) == ["MOVED", outcome, "not begun", status]


def test_a_signal_between_two_stops_it_and_what_was_moved_is_told(pids: list[int]) -> None:
    def moved_and_stopped() -> Report:
        with interrupt.at_checkpoints():
            signal.raise_signal(signal.SIGINT)
            return Report(outcome=Outcome.MOVED)

    driver = Driver({("move", pids[0]): moved_and_stopped})
    assert run(pids, driver, keep_going=True) == ["MOVED", "not begun", "not begun", "UNTOUCHED"]
    assert driver.asked[-1] == ("move", pids[0])


def test_a_signal_is_raised_at_once_in_each_before_its_freeze(pids: list[int]) -> None:
    def stopped() -> Report:
        try:
            signal.raise_signal(signal.SIGTERM)
        except interrupt.Interrupted as error:
            return failed(Outcome.UNTOUCHED, error)()
        raise AssertionError("went on")

    def moved() -> Report:
        with interrupt.at_checkpoints():
            return Report(outcome=Outcome.MOVED)

    driver = Driver({("move", pids[0]): moved, ("move", pids[1]): stopped})
    assert run(pids, driver, keep_going=True) == ["MOVED", "UNTOUCHED", "not begun", "UNTOUCHED"]


def test_a_signal_while_they_are_looked_at(pids: list[int]) -> None:
    def stopped() -> Report:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    driver = Driver({("check", pids[1]): stopped})
    assert run(pids, driver) == ["not begun"] * 3 + ["UNTOUCHED"]
    assert driver.asked == [("check", pids[0]), ("check", pids[1])]


def test_none_is_moved_twice(pids: list[int]) -> None:
    driver = Driver()
    assert run([pids[0], pids[0]], driver) == ["not begun", "UNTOUCHED", "UNTOUCHED"]
    lines = several.run(
        SeveralRequest(each=tuple(Request(pid=pid, host="h") for pid in (pids[0], os.getpid(), pids[1]))),
        Driver(),
    )
    told = [one.report.reasons[0].text if one.report else "" for one in lines]
    below = f"is below process {os.getpid()}, which is named as well, and moves with it"
    assert told == [f"process {pids[0]} {below}", "", f"process {pids[1]} {below}"]


def test_one_that_is_not_there_is_left_to_the_check(pids: list[int]) -> None:
    each = (Request(pid=pids[0], host="h"), Request(pid=0, host="h", named=Named(process="no-such-program")))
    driver = Driver({("check", 0): NO})
    lines = several.run(SeveralRequest(each=each), driver)
    assert [(one.word, one.outcome) for one in lines] == [
        (str(pids[0]), "not begun"),
        ("no-such-program", "UNTOUCHED"),
    ]


def test_the_worst_is_the_exit_status() -> None:
    order = [Exit.MOVED, Exit.UNTOUCHED, Exit.ROLLED_BACK, Exit.ENDED, Exit.IN_DOUBT, Exit.BUG]
    bug = Report(outcome=Outcome.ROLLED_BACK, error=problems.of(KeyError("x")))
    ends = [
        Report(outcome=Outcome.MOVED),
        NO(),
        *(failed(one, CriuError("x"))() for one in (Outcome.ROLLED_BACK, Outcome.ENDED, Outcome.IN_DOUBT)),
        bug,
    ]
    lines = [summary.Line("1", 1, "a", report) for report in ends]
    assert [one.status for one in lines] == order
    for number in range(len(lines)):
        assert summary.exit_status(lines[: number + 1][::-1]) == order[number]


def test_the_table() -> None:
    moved = Report(outcome=Outcome.MOVED, where="runs on h as PID 7")
    lines = [
        summary.Line("7", 7, "redis-server", moved),
        summary.Line(":80", 812, "nginx", NO()),
        summary.Line("web", 0, "", None),
    ]
    assert summary.table(lines) == [
        "PID  PROGRAM       OUTCOME",
        "7    redis-server  MOVED      runs on h as PID 7",
        "812  nginx         UNTOUCHED  It is traced",
        "web                not begun",
    ]
