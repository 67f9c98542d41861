"""Limits of time: one table, and what whoever waits before COMMIT looks at."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate import interrupt, limits
from migrate.errors import FilterLost, MigrateError, TookTooLong
from migrate.files.images import Sender
from migrate.gap.lease import Lease
from migrate.link.payloads import Piece
from migrate.origin.patience import Patience, in_words
from migrate.watch import GivenUp, Watch

ROOT = Path(limits.__file__).parent


class Clock:
    """Seconds, as a test sets them."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


# --- the table -------------------------------------------------------------------------------------------


def test_every_row_is_a_constant_of_its_name() -> None:
    names = [row.name for row in limits.TABLE]
    assert len(set(names)) == len(names) > 20
    for row in limits.TABLE:
        assert getattr(limits, row.name) == row.seconds > 0
        assert row.bounds
        assert f"{row.name} " in limits.table()


def test_no_other_module_has_a_limit_of_its_own() -> None:
    """But pauses, and schedules of what is done: they bound nothing."""
    own = re.compile(
        r"^_?[A-Z_]*(TIMEOUT|LIMIT|MOST|ANSWER|SILENCE|PATIENCE|DEADLINE|END|START)[A-Z_]*_S\b.*=", re.M
    )
    found = {
        path.name: own.findall(path.read_text())
        for path in ROOT.rglob("*.py")
        if path.name != "limits.py" and not {"lab", "testing"} & {*path.parts}
    }
    assert {name for name, lines in found.items() if lines} <= {"config.py"}  # what poll() takes


def test_a_slow_host_may_start_what_is_needed_before_the_freeze() -> None:
    """A loaded machine may take half a minute to start a Python; a refusal comes before the driver gives up."""
    for limit in (limits.GUARDIAN_START_S, limits.KEEPER_START_S, limits.NAMESPACE_S, limits.PROBE_S):
        assert limit >= limits.AGENT_START_S
    assert limits.PROBE_S < limits.ANSWER_S


# --- patience --------------------------------------------------------------------------------------------


def test_each_step_has_its_time_as_a_whole() -> None:
    clock = Clock()
    patience = Patience(60, 10, clock)
    patience.check()
    patience.begin_step("stream")
    clock.now_s = 59.0
    patience.check()
    clock.now_s = 60.0
    with pytest.raises(TookTooLong, match="60 s after the step stream began its images") as caught:
        patience.check()
    assert "--timeout" in caught.value.problem.hint
    patience.begin_step("restore")
    patience.check()


def test_all_steps_of_the_gap_have_theirs_together() -> None:
    clock = Clock()
    patience = Patience(60, 10, clock)
    patience.begin_step("freeze")
    patience.begin_gap()
    clock.now_s = 6.0
    patience.begin_step("restore")
    assert (patience.left_s, patience.until) == (4.0, 10.0)
    clock.now_s = 10.5
    assert patience.left_s == 0.0
    with pytest.raises(TookTooLong, match="10 s after new connections were first held") as caught:
        patience.check()
    assert "lock" in caught.value.problem.hint and "--max-gap" in caught.value.problem.hint


@pytest.mark.parametrize("step", ["dump", "restore"])
def test_a_large_tree_is_slow_before_anything_hangs(step: str) -> None:
    clock = Clock()
    patience = Patience(60, 10, clock)
    patience.begin_gap()
    patience.begin_step(step)
    clock.now_s = 10.5
    with pytest.raises(TookTooLong) as caught:
        patience.check()
    assert caught.value.problem.hint.startswith("That takes longer the more processes and threads it has")
    assert caught.value.problem.hint.endswith("Or allow more with --max-gap.")


def test_a_hold_is_not_taken_for_the_step_before_it() -> None:
    """Which had been finished."""
    clock = Clock()
    patience = Patience(60, 10, clock)
    patience.begin_gap()
    patience.begin_step("restore")
    patience.held("RESTORED")
    clock.now_s = 10.5
    with pytest.raises(TookTooLong, match="it was still held at RESTORED$"):
        patience.check()
    patience.begin_step("switch")
    with pytest.raises(TookTooLong, match="did not answer for the addresses yet$"):
        patience.check()


def test_the_check_says_how_long() -> None:
    assert "at most 2.5 s (--max-gap)" in in_words(2.5)


# --- watch -----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_signal_is_pending() -> Iterator[None]:
    """Another test in the same process may have left one that nobody asked for."""
    with interrupt.handled():
        yield


def failing() -> None:
    raise MigrateError("found")


def test_watch_raises_what_a_look_finds_until_its_end() -> None:
    watch = Watch()
    with interrupt.handled():  # none is left of another test
        watch()
        watch.also(failing)
        with pytest.raises(MigrateError, match="found"):
            watch()
        watch.end()
        watch()


def test_a_look_may_wait_itself() -> None:
    watch, looks = Watch(), []

    def look() -> None:
        looks.append(1)
        watch()

    watch.also(look)
    watch()
    assert looks == [1]


def test_other_threads_are_ended_and_else_left_alone() -> None:
    watch, raised = Watch(), []

    def run() -> None:
        try:
            watch()
        except MigrateError as error:
            raised.append(type(error))

    def in_thread() -> None:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    watch.also(failing)
    in_thread()
    assert raised == []
    watch.end()
    in_thread()
    assert raised == [GivenUp]


def test_watch_heeds_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped() -> None:
        raise interrupt.Interrupted("stopped by SIGINT")

    monkeypatch.setattr(interrupt, "check", stopped)
    with pytest.raises(interrupt.Interrupted):
        Watch()()


# --- lease -----------------------------------------------------------------------------------------------


class Filter:
    """Stands for :class:`tcpcp.endpoint.isolation.Isolation` and the kernel behind it."""

    timeout_s = 40

    def __init__(self, clock: Clock) -> None:
        self.clock, self.until, self.renewed = clock, -1.0, 0

    def hold(self, flows: Iterable[object], listeners: Iterable[object], *, syn_only: bool) -> None:
        self.refresh()

    def refresh(self) -> None:
        self.until = self.clock() + self.timeout_s
        self.renewed += 1

    def keep(self) -> None:
        self.until = float("inf")

    def in_force(self) -> bool:
        return self.clock() < self.until


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(clock: Clock) -> Filter:
    return Filter(clock)


@pytest.fixture
def lease(clock: Clock, held: Filter) -> Lease:
    return Lease(held, clock)  # type: ignore[arg-type]


def test_a_lease_is_renewed_as_long_as_the_work_goes_on(clock: Clock, held: Filter, lease: Lease) -> None:
    lease.hold()
    for second in range(1000):
        clock.now_s = float(second)
        lease.renew()
        assert held.in_force()
    assert 90 < held.renewed < 110
    lease.keep()
    clock.now_s = 1e9
    lease.check()
    assert held.in_force()


@pytest.mark.parametrize("what", ["renew", "keep", "hold", "check"])
def test_a_filter_that_ended_is_never_trusted_again(
    clock: Clock, held: Filter, lease: Lease, what: str
) -> None:
    """The program was stopped for too long."""
    lease.hold()
    clock.now_s = 41.0
    for _ in range(2):
        with pytest.raises(FilterLost, match="ended by itself"):
            getattr(lease, what)()
    assert not held.in_force()


def test_a_filter_that_was_removed_is_noticed(clock: Clock, held: Filter, lease: Lease) -> None:
    lease.hold()
    held.until = 0.0
    with pytest.raises(FilterLost, match="removed"):
        lease.keep()


def test_what_holds_nothing_yet_is_not_missed(lease: Lease) -> None:
    lease.check()
    lease.renew()


# --- the sender of images --------------------------------------------------------------------------------


def test_a_sender_is_given_up_between_two_chunks(tmp_path: Path) -> None:
    """The link is slow: who waits for the rest can be interrupted, and does not wait on the way back."""
    (tmp_path / "pages-1.img").write_bytes(bytes(8 << 20))
    sent: list[int] = []
    may = threading.Semaphore(1)

    def slow(chunk: Piece) -> None:
        assert may.acquire(timeout=10)
        sent.append(len(chunk.data))

    def interrupted() -> None:
        raise interrupt.Interrupted("stopped")

    sender = Sender(tmp_path, slow, interrupted)
    sender.start()
    eventually(lambda: sent, "something is sent")
    began = time.monotonic()
    with pytest.raises(interrupt.Interrupted):
        sender.finish("ab12")
    sender.abandon()
    assert time.monotonic() - began < 5
    may.release()
    sender.stop()
    assert len(sent) == 2  # the one that was under way, and none after it


def test_a_sender_that_is_finished_sends_all(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "pages-1.img").write_bytes(content)
    got: list[Piece] = []
    sender = Sender(tmp_path, got.append)
    sender.start()
    manifest = sender.finish("ab12")
    assert b"".join(one.data for one in got) == content
    assert manifest.files[0].size_bytes == len(content)
