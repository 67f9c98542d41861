"""The report says what was seen in the end, not what was meant to be."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from migrate import host_name, limits, place
from migrate.criu.worker import Worker
from migrate.destination import built
from migrate.destination.agent import Agent
from migrate.destination.built import Built
from migrate.errors import CriuError, Ended, Refused, Signalled
from migrate.journal import journal, stored
from migrate.link.failure import from_failure, to_failure
from migrate.machine import STEPS, Machine
from migrate.origin import observed
from migrate.origin.account import Account
from migrate.origin.ending import Ending
from migrate.origin.move import Held, Move
from migrate.origin.patience import Patience
from migrate.origin.session import Session
from migrate.pb.session_pb2 import Activated, Failure, TaskState
from migrate.processes import identity
from migrate.processes.chosen import Subject
from migrate.processes.watched import Watched
from migrate.recovery import settle, undo
from migrate.recovery.records import Record
from migrate.report.report import Outcome, Report
from migrate.request import Request
from migrate.states import State
from migrate.watch import nothing

#: What the report calls this host.
HERE = host_name.here()


def stop(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    while identity.state(child.pid) != "T":
        pass


# --- on the origin ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Outcome.UNTOUCHED, Outcome.ROLLED_BACK])
def test_it_runs_here(child: subprocess.Popen[bytes], outcome: Outcome) -> None:
    report = Report(outcome=outcome)
    with Subject(child.pid) as subject:
        observed.on_origin(report, subject)
    assert (report.outcome, report.where) == (outcome, f"runs on {HERE} as PID {child.pid}")
    assert report.error is None


@pytest.mark.parametrize("outcome", [Outcome.UNTOUCHED, Outcome.ROLLED_BACK])
def test_it_has_ended_here(child: subprocess.Popen[bytes], outcome: Outcome) -> None:
    report = Report(outcome=outcome)
    with Subject(child.pid) as subject:
        child.kill()
        child.wait()
        report.fail(CriuError("no"))
        observed.on_origin(report, subject)
    assert (report.outcome, report.where) == (Outcome.ENDED, f"PID {child.pid} has ended on {HERE}")
    assert report.exit_status == 6
    assert report.error is not None and report.error.text == "no"  # the first one


def test_it_takes_the_signal_and_ends(child: subprocess.Popen[bytes]) -> None:
    report = Report(outcome=Outcome.ROLLED_BACK)
    report.fail(Signalled("SIGTERM"))
    with Subject(child.pid) as subject:
        child.terminate()
        observed.on_origin(report, subject)
    assert report.outcome is Outcome.ENDED


def test_it_is_stopped_here(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migrate.limits.LET_GO_S", 0.05)
    with Subject(child.pid) as subject:
        stop(child)
        report = Report(outcome=Outcome.ROLLED_BACK)
        observed.on_origin(report, subject)
    assert report.where == f"is stopped on {HERE} as PID {child.pid}"


@pytest.mark.parametrize("outcome", [Outcome.MOVED, Outcome.IN_DOUBT])
def test_elsewhere_is_none_of_its_business(child: subprocess.Popen[bytes], outcome: Outcome) -> None:
    report = Report(outcome=outcome, where="there")
    with Subject(child.pid) as subject:
        child.kill()
        child.wait()
        observed.on_origin(report, subject)
    assert (report.outcome, report.where) == (outcome, "there")


def test_a_zombie_has_not_ended_meanwhile(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    while identity.state(child.pid) != "Z":
        pass
    report = Report(outcome=Outcome.UNTOUCHED)
    with Subject(child.pid) as subject:
        report.fail(Refused([]))
        observed.on_origin(report, subject)
    assert report.outcome is Outcome.UNTOUCHED


# --- on the destination ----------------------------------------------------------------------------------

BEFORE = [TaskState(pid=7, state="S"), TaskState(pid=8, state="S"), TaskState(pid=9, state="Z")]


def moved(before: list[TaskState] = BEFORE, **states: str) -> Report:
    seen = Activated(destination_pid=7, problems=["nothing listens"] if "x" in states else [])
    seen.tasks.extend(TaskState(pid=int(pid[1:]), state=state) for pid, state in states.items() if pid != "x")
    report = Report(outcome=Outcome.IN_DOUBT, pid=7, destination_pid=7)
    observed.on_destination(report, "b", observed.Seen(before, seen))
    return report


def test_it_runs_there() -> None:
    report = moved(_7="R", _8="D", _9="")
    assert (report.outcome, report.where, report.notes) == (Outcome.MOVED, "runs on b as PID 7", [])


@pytest.mark.parametrize("state", ["Z", "X", ""])
def test_it_has_ended_there(state: str) -> None:
    report = moved(_7=state, _8="S")
    assert (report.outcome, report.exit_status) == (Outcome.ENDED, 6)
    assert report.where == "was moved to b and has ended there"


def test_what_else_was_seen_there_is_noted() -> None:
    assert "1 of its child processes has ended on b since: 8" in moved(_7="S", _8="Z").notes
    assert "nothing listens" in moved(_7="S", _8="S", x="").notes
    assert any("kill -CONT 7" in note for note in moved(_7="T", _8="S").notes)
    stopped = [TaskState(pid=7, state="T")]
    assert moved(stopped, _7="T").where == "is stopped, as it was before, on b as PID 7"


def test_nobody_has_looked_since() -> None:
    report = moved(_7="S", _8="S")
    observed.not_since(report, "b")
    assert (report.outcome, report.where) == (Outcome.MOVED, "ran on b as PID 7 when it was last seen there")
    ended = moved(_7="Z", _8="S")
    observed.not_since(ended, "b")
    assert ended.where == "was moved to b and has ended there"


# --- what the destination looks at -----------------------------------------------------------------------


def test_watched(child: subprocess.Popen[bytes]) -> None:
    one = identity.identity(child.pid)
    watched = Watched([one, (child.pid, one[1] + 1), (1 << 22, 5)])
    assert watched.ended() == [child.pid, 1 << 22] and not watched.all_ended()
    watched.close()
    watched = Watched([one])
    assert watched.ended() == [] and set(watched.states()) == {child.pid}
    child.kill()
    child.wait()
    assert watched.ended() == [child.pid] and watched.all_ended()
    assert watched.states() == {child.pid: ""}
    watched.close()


def made(child: subprocess.Popen[bytes], state: str = "S") -> Built:
    return Built([TaskState(pid=70, state=state), TaskState(pid=71, state="Z")], {70: child.pid, 71: 5})


def test_what_was_built_waits(child: subprocess.Popen[bytes]) -> None:
    found = made(child)
    found.require_whole()
    assert not found.gone()
    first, second = found.seen()
    assert (first.pid, second.pid, second.state) == (70, 71, "")
    assert first.state in ("R", "S")


def test_what_was_built_is_killed(child: subprocess.Popen[bytes]) -> None:
    found = made(child)
    child.kill()
    child.wait()
    for look in (found.require, found.require_whole):
        with pytest.raises(CriuError, match=f"process {child.pid} of the tree .* has ended before it ran"):
            look()
    assert found.gone()
    assert found.seen()[0].state == ""


def test_what_was_built_is_stopped(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RUNS_S", 0.01)
    found = made(child)
    stop(child)
    found.require()
    with pytest.raises(CriuError, match="stopped by a signal"):
        found.require_whole()
    assert found.seen()[0].state == "T"


def test_what_was_not_built(child: subprocess.Popen[bytes]) -> None:
    with pytest.raises(CriuError, match="did not build process 70"):
        Built([TaskState(pid=70, state="S")], {})


def test_a_number_that_was_taken_since(child: subprocess.Popen[bytes]) -> None:
    built.free([1 << 22])
    with pytest.raises(CriuError, match=f"PID {child.pid}, .* was taken by "):
        built.free([1 << 22, child.pid])


# --- "it does not run there", said by the destination ----------------------------------------------------


def test_not_there_crosses_the_wire() -> None:
    told = to_failure(CriuError("no"))
    assert not from_failure(told).not_there
    told.not_here = True
    assert from_failure(Failure.FromString(told.SerializeToString())).not_there
    assert isinstance(from_failure(to_failure(Ended("x"))), Ended)


class Journal:
    def __init__(self) -> None:
        self.states: list[str] = []

    def state(self, name: str) -> None:
        self.states.append(name)


def a_move(report: Report, machine: Machine) -> Move:
    """With no link, and nothing of a tree."""
    it: Any = None
    request, account = Request(pid=7, host="b"), Account(report, it, it)
    session = Session(request, account, "0123456789ab", machine, it, it, it, ("", ""), it)
    of_steps = (machine, Patience(1, 1), it)
    return Move(request, it, session, it, account, *of_steps, observed.Seen(), it, Held(), ExitStack())


def ending_after_commit(
    monkeypatch: pytest.MonkeyPatch, journal: Any = None
) -> tuple[Ending, Machine, Report, list[str]]:
    nothing_there: Any = None
    machine, report, done = Machine(), Report(outcome=Outcome.UNTOUCHED), list[str]()
    machine.touched, machine.state = True, State.COMMITTED
    ending = Ending(a_move(report, machine), journal, nothing_there, lambda: None)
    monkeypatch.setattr(ending, "_roll_back", lambda: done.append("rolled back"))
    monkeypatch.setattr(ending, "_in_doubt", lambda: done.append("in doubt"))
    return ending, machine, report, done


def test_it_goes_on_here_when_the_destination_says_that_it_does_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = Journal()
    ending, machine, report, done = ending_after_commit(monkeypatch, journal)
    error = CriuError("killed")
    error.not_there = True
    ending.failed(error)
    assert (done, report.outcome, machine.state) == (["rolled back"], Outcome.ROLLED_BACK, State.SWITCHED)
    assert journal.states == ["SWITCHED"]  # a guardian would do the same from here on


def test_it_is_in_doubt_when_the_destination_does_not_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ending, _, report, done = ending_after_commit(monkeypatch)
    ending.failed(CriuError("killed"))
    assert (done, report.outcome) == (["in doubt"], Outcome.IN_DOUBT)


def test_what_is_not_cleaned_up_for_any_reason_is_left_to_recover(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The process runs there, whatever becomes of what is left here."""
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")

    def no_memory(record: Record) -> list[str]:
        raise MemoryError

    monkeypatch.setattr(undo, "kill_origin", no_memory)
    stored.make()
    report, machine = Report(outcome=Outcome.MOVED), Machine()
    nothing_there: Any = None
    its = journal.Journal("0123456789ab", role="origin", pid=os.getpid(), other_host="there")
    ending = Ending(a_move(report, machine), its, nothing_there, lambda: None)
    ending.moved()
    assert (report.outcome, report.error) == (Outcome.MOVED, None)
    assert report.notes[-2:] == [
        f"not undone on {HERE}: MemoryError()",
        "try again with migrate --recover",
    ]
    assert not settle.sweep(lambda note: None)  # nobody has its lock any more, and it is settled
    assert not list(place.STATE.glob("0*"))


@pytest.mark.parametrize("state", [step.before for step in STEPS if step.before is not State.COMMITTED])
def test_nothing_else_is_taken_back(state: State) -> None:
    machine = Machine()
    machine.state = state
    with pytest.raises(ValueError, match="nothing to take back"):
        machine.take_back()


class Here:
    """A destination whose CRIU fails at COMMIT."""

    phases = ()

    def __init__(self, *, not_here: bool) -> None:
        self.not_here = not_here

    def settle(self) -> tuple[str, list[str]]:
        return "it does not run", ["\udcff is left"]


@pytest.mark.parametrize("not_here", [True, False])
def test_the_agent_says_whether_it_is_there(not_here: bool) -> None:
    sent: list[Any] = []
    agent: Any = Agent.__new__(Agent)
    agent._here = Here(not_here=not_here)
    agent._link = type("Link", (), {"send": lambda self, message: sent.append(message)})()
    agent._fail(CriuError("no"))
    (told,) = sent
    assert (told.not_here, [*told.log_tail], [*told.left]) == (
        not_here,
        ["it does not run"],
        ["\\udcff is left"],
    )


def test_criu_is_not_waited_for_in_vain() -> None:
    """It does not notice that a task of its restore has died, and would be waited for until the deadline."""
    worker = Worker.__new__(Worker)
    ours, theirs = socket.socketpair()

    def dead() -> None:
        raise CriuError("it is dead")

    ended, ends = os.pipe()
    try:
        with ours, theirs:
            worker._socket, worker._ended, worker.heed = ours, ended, dead
            began = time.monotonic()
            with pytest.raises(CriuError, match="it is dead"):
                worker._wait_for(ours.fileno(), began + 60, "restore")
            assert time.monotonic() - began < 30
            worker.heed = nothing
            theirs.send(b"x")
            worker._wait_for(ours.fileno(), began + 60, "restore")
            ours.recv(1)
            with pytest.raises(CriuError, match="did not answer in time"):
                worker._wait_for(ours.fileno(), time.monotonic() + 0.01, "restore")
    finally:
        os.close(ended)
        os.close(ends)
