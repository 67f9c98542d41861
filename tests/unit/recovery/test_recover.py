"""What becomes of a migration that was left alone, with undos that only say that they were called."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migrate import host_name, limits, place
from migrate.errors import Refused, TransportError
from migrate.files.entries import Copied
from migrate.journal import journal
from migrate.journal.entry import Entry
from migrate.journal.journal import Journal
from migrate.journal.reach import Reach
from migrate.pb import session_pb2 as pb
from migrate.processes import identity
from migrate.recovery import doubt, records, recover, settle, undo
from migrate.recovery.entries import KINDS, Criu, Images, Isolation, Repair, Stop, Switch, Tree
from migrate.recovery.instructions import in_doubt
from migrate.recovery.records import Record
from migrate.recovery.settle import Verdict
from migrate.report.report import Outcome, Report
from migrate.request import RecoverRequest
from migrate.states import State

ID = "0123456789ab"
#: What CRIU writes beside that then.
GIVEN_UP = "Aborting restore due to post-restore script ret code -1"
ME = identity.identity(os.getpid())


def of(role: str, task: identity.Identity) -> list[Entry]:
    """The entries of a whole migration on the host *role*."""
    first: list[Entry] = [Isolation(ID), Images("/none")]
    criu, switched = Criu(1, -1), Switch({"kind": "address"})
    if role == "origin":
        return [*first, criu, Stop((task,)), Repair((task,), True), switched]
    return [*first, Copied("/none/x", ""), switched, Tree((task,), "M=x", "/none"), criu]


@pytest.fixture(autouse=True)
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the undos called, in order."""
    monkeypatch.setattr(place, "STATE", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(doubt, "ask", unreachable)
    monkeypatch.setattr(Switch, "changed", lambda entry: [])
    called: list[str] = []
    for kind in KINDS:
        monkeypatch.setattr(kind, "undo", lambda entry: called.append(entry.kind) or entry.kind)
    return called


def unreachable(record: Record, **_: float) -> pb.Answer:
    raise TransportError(f"no route to {record.other_host}")


def answering(where: pb.Answer.Where.ValueType) -> Callable[..., pb.Answer]:
    return lambda record, **_: pb.Answer(where=where, destination_pid=77)


def run(**words: Any) -> Report:
    return recover.run(RecoverRequest(**words))


def left(role: str, *states: State, end: str = "", alive: bool = True) -> Path:
    """The journal of a migration whose owner is gone, after *states*.

    :param alive: the frozen tree is there: this very process stands for it, and nothing signals it.
    """
    written = Journal(ID, role=role, pid=os.getpid(), other_host="there")
    for entry in of(role, (ME[0], ME[1] + (not alive))):
        written.did(entry)
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
    assert calls == ["switch", "isolation", "repair", "stop", "criu", "images"]
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
    monkeypatch.setattr(undo.identity, "end", lambda found: killed.extend(found) or [])
    directory = left("origin", State.COMMITTED, State.ACTIVATED)
    assert settled(directory) is Verdict.MOVED
    assert [pid for pid, _ in killed] == [os.getpid()]
    assert calls == ["criu", "images", "isolation"]
    assert not directory.exists()


def test_filter_stays_while_the_frozen_tree_does(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo.identity, "end", list)
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


@pytest.mark.parametrize(
    ("finished", "said"), [(False, ""), (True, ""), (True, "rlimit"), (False, GIVEN_UP), (False, "rlimit")]
)
def test_destination_in_between_believes_criu(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool, said: str
) -> None:
    monkeypatch.setattr(settle.let_go, "any_runs", lambda tasks: False)
    directory = left("destination", State.COMMITTED)
    path = directory / "journal"
    path.write_text(path.read_text().replace("/none", str(tmp_path)))
    if finished or said == GIVEN_UP:
        (tmp_path / settle.STATISTICS).touch()
    if said:
        (tmp_path / "restore.log").write_text(f"Error (criu/here.c:7): {said}\n")
    assert settled(directory) is (Verdict.ARRIVED if finished else Verdict.REMOVED)
    assert ("tree" in calls) == (not finished)


def test_destination_in_between_leaves_what_runs(calls: list[str]) -> None:
    """CRIU was killed when it had let the tree go, and has written nothing: this very process stands for it."""
    assert settled(left("destination", State.COMMITTED)) is Verdict.ARRIVED
    assert "tree" not in calls


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
    report = run()
    assert report.notes == [f"migration {ID}: under way, left alone"]
    written.remove()


def test_recover_tells_what_it_did() -> None:
    assert recover.run(RecoverRequest()).notes == ["nothing was left here by a migration"]
    left("origin")
    report = run()
    assert (report.outcome, report.exit_status, len(report.notes)) == (Outcome.UNTOUCHED, 0, 1)
    assert f"process {os.getpid()} goes on here" in report.notes[0]


def test_what_is_not_as_it_was_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever undoes, last; that nobody can tell stops nothing."""
    monkeypatch.setattr(Switch, "changed", lambda entry: ["an address is not as it was"])
    left("origin")
    assert run().notes[1:] == ["an address is not as it was"]
    left("origin")
    notes: list[str] = []
    settle.clear_the_way(os.getpid(), notes.append)
    assert notes[1:] == ["an address is not as it was"]
    left("origin", State.COMMITTED)
    assert run(resume=ID, force=True).notes[1:] == ["an address is not as it was"]
    monkeypatch.setattr(Switch, "changed", lambda entry: 1 // 0)
    directory = left("origin")
    report = run()
    assert "cannot be told" in report.notes[1] and report.exit_status == 0
    assert not directory.exists()


def test_recover_says_nothing_of_a_dead_process_but_that() -> None:
    left("origin", alive=False)
    report = recover.run(RecoverRequest())
    assert f"process {os.getpid()} has ended" in report.notes[0]


def test_a_dead_process_is_not_resumed(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    left("origin", State.COMMITTED)
    monkeypatch.setattr(doubt, "ask", answering(pb.Answer.NOT_HERE))
    monkeypatch.setattr(undo.identity, "alive", lambda task: False)
    report = recover.run(RecoverRequest(resume=ID))
    assert (report.outcome, report.exit_status) == (Outcome.ENDED, 6)
    assert report.where == f"PID {os.getpid()} has ended on {host_name.here()}" and "switch" in calls


def test_a_task_that_is_gone_needs_no_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real ones
    assert Stop(((os.getpid(), -1),)).undo() == "0 tasks continued, 1 had ended"


def test_recover_tells_what_it_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(entry: dict[str, object]) -> str:
        raise OSError(5, "broken")

    monkeypatch.setattr(Images, "undo", fails)
    directory = left("origin")
    for _ in range(2):  # it may be tried again
        report = run()
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
    report = run()
    assert any("damaged in line" in note and "by hand" in note for note in report.notes)
    assert report.exit_status == 3
    assert other.exists() and not good.exists()  # the other one was undone all the same
    settle.clear_the_way(1, lambda _: None)


def test_an_entry_that_nobody_can_undo_stops_none_of_the_others(calls: list[str]) -> None:
    directory = left("origin")
    with (directory / "journal").open("ab") as file:
        file.write(b'{"did": "something-new"}\n')
    assert settled(directory) is Verdict.UNFINISHED
    assert calls == ["switch", "isolation", "repair", "stop", "criu", "images"]
    assert "this version cannot undo it" in (directory / "problems").read_text()


@pytest.mark.parametrize("how", ["resume", "release"])
def test_person_decides(calls: list[str], monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(undo.identity, "end", lambda found: [])
    directory = left("origin", State.COMMITTED)
    report = run()
    assert (report.outcome, report.exit_status) == (Outcome.IN_DOUBT, 5)
    assert any(f"--{how} {ID}" in line for line in report.instructions)
    assert any("77" in line for line in report.instructions), "the PID that it has on the destination"
    calls.clear()
    report = run(**{how: ID})
    assert (report.outcome, report.exit_status) == (Outcome.IN_DOUBT, 5)
    assert report.error is not None and "no route to there" in report.error.text
    assert "--force" in report.error.hint and calls == [] and directory.exists()
    report = run(**{how: ID}, force=True)
    assert report.outcome is (Outcome.ROLLED_BACK if how == "resume" else Outcome.MOVED)
    assert ("stop" in calls) == ("switch" in calls) == (how == "resume")
    assert not directory.exists()


@pytest.mark.parametrize("how", ["resume", "release"])
@pytest.mark.parametrize("where", [pb.Answer.RUNS, pb.Answer.ENDED, pb.Answer.UNDER_WAY, pb.Answer.NOT_HERE])
@pytest.mark.parametrize("force", [False, True])
def test_person_decides_nothing_that_the_destination_contradicts(
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    where: pb.Answer.Where.ValueType,
    force: bool,
) -> None:
    """Force or not: it is for a destination that cannot be asked."""
    monkeypatch.setattr(undo.identity, "end", lambda found: [])
    monkeypatch.setattr(doubt, "ask", answering(where))
    directory = left("origin", State.COMMITTED)
    report = run(**{how: ID}, force=force)
    agrees = where in (doubt.THERE if how == "release" else (pb.Answer.NOT_HERE,))
    assert directory.exists() == (not agrees)
    assert bool(calls) == agrees
    if not agrees:
        assert report.outcome is Outcome.IN_DOUBT and report.error is not None
        assert report.error.text.startswith("nothing was done: there was asked: it ")


@pytest.mark.parametrize(
    ("where", "undone", "stays"),
    [
        (pb.Answer.RUNS, "completed; the process runs on there", False),
        (pb.Answer.ENDED, "completed; the process runs on there", False),
        (pb.Answer.NOT_HERE, "goes on here", False),
        (pb.Answer.UNDER_WAY, "in doubt", True),
    ],
)
def test_recover_asks_the_destination(
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    where: pb.Answer.Where.ValueType,
    undone: str,
    stays: bool,
) -> None:
    monkeypatch.setattr(undo.identity, "end", lambda found: [])
    monkeypatch.setattr(doubt, "ask", answering(where))
    directory = left("origin", State.COMMITTED)
    report = run()
    assert report.outcome is (Outcome.IN_DOUBT if stays else Outcome.UNTOUCHED)
    assert undone in report.notes[-1] and "there was asked: it " in report.notes[0]
    assert directory.exists() == stays
    assert ("stop" in calls) == (where == pb.Answer.NOT_HERE)


def test_what_a_person_is_told_are_whole_commands() -> None:
    reach = Reach(host="u@there", port=2222, identity="/k e y", agent="/opt/m/migrate-agent", sudo=True)
    record = Record(ID, role="origin", pid=42, other_host="u@there", reach=reach.as_json())
    assert "ssh -p 2222 -i '/k e y' u@there 'sudo -n /opt/m/migrate --recover'" in "\n".join(in_doubt(record))


def test_person_cannot_decide_what_is_known(calls: list[str]) -> None:
    left("origin", State.COMMITTED, State.ACTIVATED)
    assert run(resume=ID).exit_status == 2
    journal.forget(place.home(ID))
    left("origin")
    assert run(release=ID).exit_status == 2
    journal.forget(place.home(ID))
    left("destination", State.COMMITTED)
    assert run(resume=ID).exit_status == 2
    assert run(resume="../../etc").exit_status == 2
    assert calls == []


def test_new_migration_of_a_process_in_doubt_is_refused() -> None:
    directory = left("origin", State.COMMITTED)
    notes: list[str] = []
    with pytest.raises(Refused) as caught:
        settle.clear_the_way(os.getpid(), notes.append)
    assert [reason.code for reason in caught.value.reasons] == ["in-doubt"]
    assert f"--resume {ID}" in caught.value.reasons[0].remedy
    with pytest.raises(Refused):
        settle.clear_the_way(1, notes.append, {os.getpid()})
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
    with pytest.raises(Refused, match="1 reason"):  # a process of that tree
        settle.clear_the_way(43, lambda _: None, {42})
    settle.clear_the_way(43, lambda _: None)
    written.abandon()
    settle.clear_the_way(42, lambda _: None)


# --- one journal stops nothing ----------------------------------------------------------------------------

FIRST = '{"id": "x", "role": "origin", "pid": 999999, "other_host": "x"}\n'


@pytest.mark.parametrize(
    ("text", "lock", "stays"),
    [
        (FIRST + '{"did": "newthing"}\n', True, True),
        (FIRST + "{garbage}\n", True, True),
        (FIRST + "[1]\n", True, True),
        (FIRST.replace("{", '{"version": 99, ', 1), True, True),
        ('{"did": "images", "path": "/none"}\n{"state": "COMMITTED"}\n', True, True),
        (FIRST, False, False),
        ("", True, False),
        ("\0\1\n", True, True),
        (FIRST + '{"did": "stop", "tasks": [[999999, 5]]}\n', True, False),
    ],
)
def test_a_journal_of_any_kind_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, lock: bool, stays: bool
) -> None:
    monkeypatch.setattr(Stop, "undo", STOP)
    odd = tmp_path / ("0" * 12)
    odd.mkdir()
    (odd / "journal").write_text(text)
    if lock:
        (odd / "lock").touch()
    good = left("origin")
    found = settle.sweep(lambda _: None)
    assert [one.verdict for one in found] == [Verdict.UNFINISHED] * stays
    assert (odd.exists(), good.exists()) == (stays, False)
    settle.clear_the_way(999999 if not stays else 1, lambda _: None)


STOP = Stop.undo


def test_a_lock_that_is_lost_is_no_owner_unless_he_lives() -> None:
    written = Journal(ID, role="origin", pid=1, other_host="there")
    (written.directory / "lock").unlink()
    with journal.owned(written.directory) as owned:
        assert not owned
    path = written.directory / "journal"
    start = records.read(written.directory).owner[1]  # type: ignore[index]
    path.write_text(path.read_text().replace(f"{start}]", f"{start - 1}]"))
    with journal.owned(written.directory) as owned:
        assert owned
    written.remove()


def test_a_process_that_had_ended_is_told_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stop, "undo", STOP)
    directory = left("origin", alive=False)
    (note,) = run().notes
    assert f"process {os.getpid()} has ended here" in note
    assert not directory.exists()


def test_a_bug_in_one_undo_stops_nothing(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(entry: dict[str, object]) -> str:
        raise AttributeError("of another version")

    monkeypatch.setattr(Switch, "undo", fails)
    assert settled(left("origin")) is Verdict.UNFINISHED
    assert calls == ["isolation", "repair", "stop", "criu", "images"]


def test_no_space_for_the_first_line_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:5]))
    with pytest.raises(OSError, match="no space"):
        Journal(ID, role="origin", pid=1, other_host="there")
    assert list(tmp_path.iterdir()) == []
