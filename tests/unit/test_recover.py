"""What becomes of a migration that was left alone, with undos that only say that they were called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrate import journal, limits, place, recover, settle, undo
from migrate.errors import Refused
from migrate.journal import Journal
from migrate.machine import State
from migrate.report import Outcome, Report
from migrate.request import RecoverRequest
from migrate.settle import Verdict

ID = "0123456789ab"
ORIGIN = ("isolation", "images", "criu", "stop", "repair", "switch")
DESTINATION = ("isolation", "images", "copied", "switch", "tree", "criu")


@pytest.fixture(autouse=True)
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the undos called, in order."""
    monkeypatch.setattr(place, "STATE", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    called: list[str] = []
    for name in undo.UNDO:
        monkeypatch.setitem(undo.UNDO, name, lambda entry, name=name: called.append(name) or name)
    return called


class Quiet:
    """An observer that nobody looks at."""

    def finished(self, report: Report) -> None:
        """See :class:`migrate.ui.Observer`."""


def left(role: str, *states: State, end: str = "", alive: bool = True) -> Path:
    """The journal of a migration whose owner is gone, after *states*.

    :param alive: the frozen tree is there: this very process stands for it, and nothing signals it.
    """
    written = Journal(ID, role=role, pid=os.getpid(), other_host="there")
    from migrate import processes

    pid, start = processes.identity(os.getpid())
    details = {"tasks": [[pid, start + (not alive)]], "path": "/none", "pid": 1, "start": -1, "backup": ""}
    for name in ORIGIN if role == "origin" else DESTINATION:
        written.did(name, **details)
    for state in states:
        written.state(state.value, destination_pid=77)
    if end:
        written.end(end)
    written.abandon()
    return written.directory


def settled(directory: Path) -> Verdict:
    result = settle.settle(directory)
    assert result is not None
    return result.verdict


def test_origin_before_commit_is_rolled_back(calls: list[str]) -> None:
    directory = left("origin")
    assert settled(directory) is Verdict.ROLLED_BACK
    assert calls == ["switch", "repair", "stop", "isolation", "criu", "images"]
    assert not directory.exists()
    assert settle.settle(directory) is None


def test_origin_after_commit_is_in_doubt(calls: list[str]) -> None:
    """Nothing that would let the tree run, or let a packet out."""
    directory = left("origin", State.COMMITTED)
    assert settled(directory) is Verdict.IN_DOUBT
    assert calls == ["criu", "images"]
    assert directory.exists()


def test_doubt_about_a_copy_that_is_dead_is_none(calls: list[str]) -> None:
    directory = left("origin", State.COMMITTED, alive=False)
    assert settled(directory) is Verdict.ENDED
    assert calls == ["criu", "images", "isolation"]
    assert not directory.exists()


def test_origin_after_activation_is_completed(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(undo.processes, "end", lambda found: killed.extend(found) or [])
    directory = left("origin", State.COMMITTED, State.ACTIVATED)
    assert settled(directory) is Verdict.MOVED
    assert [pid for pid, _ in killed] == [os.getpid()]
    assert calls == ["criu", "images", "isolation"]
    assert not directory.exists()


def test_filter_stays_while_the_frozen_tree_does(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo.processes, "end", list)
    directory = left("origin", State.COMMITTED, State.ACTIVATED)
    assert settled(directory) is Verdict.UNFINISHED
    assert calls == []
    assert "could not kill" in (directory / "problems").read_text()


def test_destination_before_commit_is_cleaned(calls: list[str]) -> None:
    assert settled(left("destination")) is Verdict.REMOVED
    assert calls == ["criu", "tree", "switch", "copied", "images", "isolation"]


def test_destination_after_activation_keeps_what_the_tree_needs(calls: list[str]) -> None:
    assert settled(left("destination", State.COMMITTED, State.ACTIVATED)) is Verdict.ARRIVED
    assert calls == ["criu", "images", "isolation"]


@pytest.mark.parametrize("log", ["", "... Restore finished successfully. Tasks resumed.\n"])
def test_destination_in_between_believes_criu(calls: list[str], tmp_path: Path, log: str) -> None:
    directory = left("destination", State.COMMITTED)
    path = directory / "journal"
    path.write_text(path.read_text().replace("/none", str(tmp_path)))
    (tmp_path / "restore.log").write_text(log)
    assert settled(directory) is (Verdict.ARRIVED if log else Verdict.REMOVED)
    assert ("tree" in calls) == (not log)


def test_closed_journal_is_only_forgotten(calls: list[str]) -> None:
    directory = left("origin", end="ROLLED_BACK")
    assert settled(directory) is Verdict.COMPLETE
    assert calls == []
    assert not directory.exists()


def test_journal_of_nobody_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / ID).mkdir()
    for name in ("lock", "journal"):
        (tmp_path / ID / name).touch()
    assert settle.sweep(lambda _: None) == []
    assert not (tmp_path / ID).exists()


def test_what_is_under_way_is_left_alone() -> None:
    written = Journal(ID, role="origin", pid=1, other_host="there")
    report = recover.run(RecoverRequest(), Quiet())  # type: ignore[arg-type]
    assert report.notes == [f"migration {ID}: under way, left alone"]
    written.remove()


def test_recover_tells_what_it_did() -> None:
    assert recover.run(RecoverRequest(), Quiet()).notes == ["nothing was left here by a migration"]  # type: ignore[arg-type]
    left("origin")
    report = recover.run(RecoverRequest(), Quiet())  # type: ignore[arg-type]
    assert (report.outcome, report.exit_status, len(report.notes)) == (Outcome.UNTOUCHED, 0, 1)
    assert f"process {os.getpid()} goes on here" in report.notes[0]


def test_recover_says_nothing_of_a_dead_process_but_that() -> None:
    left("origin", alive=False)
    report = recover.run(RecoverRequest(), Quiet())  # type: ignore[arg-type]
    assert f"process {os.getpid()} has ended" in report.notes[0]


def test_a_dead_process_is_not_resumed(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    left("origin", State.COMMITTED)
    monkeypatch.setattr(undo.processes, "alive", lambda task: False)
    report = recover.run(RecoverRequest(resume=ID), Quiet())  # type: ignore[arg-type]
    assert (report.outcome, report.exit_status) == (Outcome.ENDED, 6)
    assert report.where == f"PID {os.getpid()} has ended on origin" and "switch" in calls


def test_a_task_that_is_gone_needs_no_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real ones
    assert undo._stop({"tasks": [[os.getpid(), -1]]}) == "0 tasks continued"


def test_recover_tells_what_it_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(entry: dict[str, object]) -> str:
        raise OSError(5, "broken")

    monkeypatch.setitem(undo.UNDO, "images", fails)
    directory = left("origin")
    for _ in range(2):  # it may be tried again
        report = recover.run(RecoverRequest(), Quiet())  # type: ignore[arg-type]
        assert report.error is not None and report.exit_status == 3
        assert any("broken" in note for note in report.notes)
        assert directory.exists()


def test_a_damaged_journal_is_told_and_left(calls: list[str]) -> None:
    directory = left("origin")
    with (directory / "journal").open("ab") as file:
        file.write(b"{}\n")
    other = Path(directory.parent / ("f" * 12))
    directory.rename(other)
    good = left("origin")
    report = recover.run(RecoverRequest(), Quiet())  # type: ignore[arg-type]
    assert any("damaged in line" in note and "by hand" in note for note in report.notes)
    assert report.exit_status == 3
    assert other.exists() and not good.exists()  # the other one was undone all the same
    settle.clear_the_way(1, lambda _: None)


def test_an_entry_that_nobody_can_undo_stops_none_of_the_others(calls: list[str]) -> None:
    directory = left("origin")
    with (directory / "journal").open("ab") as file:
        file.write(b'{"did": "something-new"}\n')
    assert settled(directory) is Verdict.UNFINISHED
    assert calls == ["switch", "repair", "stop", "isolation", "criu", "images"]
    assert "this version cannot undo it" in (directory / "problems").read_text()


@pytest.mark.parametrize("how", ["resume", "release"])
def test_person_decides(calls: list[str], monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(undo.processes, "end", lambda found: [])
    directory = left("origin", State.COMMITTED)
    report = recover.run(RecoverRequest(), Quiet())  # type: ignore[arg-type]
    assert (report.outcome, report.exit_status) == (Outcome.IN_DOUBT, 5)
    assert any(f"--{how} {ID}" in line for line in report.instructions)
    assert any("77" in line for line in report.instructions), "the PID that it has on the destination"
    calls.clear()
    report = recover.run(RecoverRequest(**{how: ID}), Quiet())  # type: ignore[arg-type]
    assert report.outcome is (Outcome.ROLLED_BACK if how == "resume" else Outcome.MOVED)
    assert ("stop" in calls) == ("switch" in calls) == (how == "resume")
    assert not directory.exists()


def test_person_cannot_decide_what_is_known(calls: list[str]) -> None:
    left("origin", State.COMMITTED, State.ACTIVATED)
    assert recover.run(RecoverRequest(resume=ID), Quiet()).exit_status == 2  # type: ignore[arg-type]
    journal.forget(place.home(ID))
    left("origin")
    assert recover.run(RecoverRequest(release=ID), Quiet()).exit_status == 2  # type: ignore[arg-type]
    journal.forget(place.home(ID))
    left("destination", State.COMMITTED)
    assert recover.run(RecoverRequest(resume=ID), Quiet()).exit_status == 2  # type: ignore[arg-type]
    assert recover.run(RecoverRequest(resume="../../etc"), Quiet()).exit_status == 2  # type: ignore[arg-type]
    assert calls == []


def test_new_migration_of_a_process_in_doubt_is_refused() -> None:
    directory = left("origin", State.COMMITTED)
    notes: list[str] = []
    with pytest.raises(Refused) as caught:
        settle.clear_the_way(os.getpid(), notes.append)
    assert [reason.code for reason in caught.value.reasons] == ["in-doubt"]
    assert f"--resume {ID}" in caught.value.reasons[0].remedy
    settle.clear_the_way(1, notes.append)  # of another process, it is only told of
    assert directory.exists()


def test_new_migration_rolls_a_dead_one_back_first() -> None:
    directory = left("origin")
    notes: list[str] = []
    settle.clear_the_way(os.getpid(), notes.append)
    assert len(notes) == 1 and "rolled back" in notes[0]
    assert not directory.exists()


def test_new_migration_waits_for_a_guardian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SETTLING_S", 0.05)
    written = Journal(ID, role="origin", pid=42, other_host="there")
    with pytest.raises(Refused, match="1 reason"):
        settle.clear_the_way(42, lambda _: None)
    settle.clear_the_way(43, lambda _: None)
    written.abandon()
    settle.clear_the_way(42, lambda _: None)
