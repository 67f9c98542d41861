"""What a destination says when it is asked where a process is: its journal, or what it kept of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrate import place
from migrate.journal.journal import Journal
from migrate.pb import session_pb2 as pb
from migrate.processes import identity
from migrate.recovery import arrived, settle, whereabouts
from migrate.recovery.entries import KINDS, Tree
from migrate.states import State

ID = "0123456789ab"
ME = identity.identity(os.getpid())
GONE = (ME[0], ME[1] - 1)


@pytest.fixture(autouse=True)
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "STATE", tmp_path)
    for kind in KINDS:
        monkeypatch.setattr(kind, "undo", lambda entry: "")


def journal(*states: State, task: identity.Identity = ME) -> Journal:
    """The destination's, open, of a tree that has been built as this very process."""
    written = Journal(ID, role="destination", pid=42, other_host="there")
    written.did(Tree((), "M=x", "/none"))
    written.did(Tree((task,), "M=x", "/none"))
    for state in states:
        written.state(state.value, destination_pid=task[0])
    return written


def found() -> tuple[pb.Answer.Where.ValueType, int]:
    answer = whereabouts.find(ID, 0.0)
    return answer.where, answer.destination_pid


def test_nothing_is_known_of_it() -> None:
    assert found() == (pb.Answer.NOT_HERE, 0)


@pytest.mark.parametrize("state", [State.RESTORED, State.COMMITTED])
def test_what_is_built_and_does_not_run_is_under_way_while_its_owner_lives(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle.let_go, "any_runs", lambda tasks: False)
    written = journal(state)
    assert found() == (pb.Answer.UNDER_WAY, ME[0])
    assert whereabouts.sentence(whereabouts.find(ID, 0.0)).startswith(f"PID {ME[0]}: built, not running yet")
    written.abandon()
    assert found() == (pb.Answer.NOT_HERE, 0)
    assert not place.home(ID).exists()


def test_what_criu_had_let_run_runs_here_though_nobody_has_said_so() -> None:
    written = journal(State.RESTORED, State.COMMITTED)
    written.abandon()
    assert found() == (pb.Answer.RUNS, ME[0])


@pytest.mark.parametrize(
    ("task", "expected"), [(ME, (pb.Answer.RUNS, ME[0])), (GONE, (pb.Answer.ENDED, ME[0]))]
)
def test_what_ran_is_known_after_everything_was_settled(
    task: identity.Identity, expected: tuple[pb.Answer.Where.ValueType, int]
) -> None:
    """Also when it was settled without the origin: it must not take silence for "not here"."""
    written = journal(State.RESTORED, State.COMMITTED, State.ACTIVATED, task=task)
    assert found() == expected
    written.abandon()
    assert found() == expected
    assert not place.home(ID).exists()
    assert found() == expected


def test_what_cannot_be_kept_leaves_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrived, "keep", full)
    journal(State.ACTIVATED).abandon()
    assert settle.sweep(lambda _: None) != []
    assert found() == (pb.Answer.RUNS, ME[0])


def test_a_tree_that_could_not_be_killed_is_no_ground_to_go_on_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stubborn(_: object) -> str:
        raise OSError(1, "could not kill")

    monkeypatch.setattr(Tree, "undo", stubborn)
    journal(State.RESTORED).abandon()
    assert found() == (pb.Answer.UNDER_WAY, ME[0])


def test_a_damaged_journal_says_nothing() -> None:
    written = journal(State.RESTORED)
    with (written.directory / "journal").open("ab") as file:
        file.write(b"{}\n")
    written.abandon()
    assert found() == (pb.Answer.UNDER_WAY, 0)


@pytest.mark.parametrize("line", [b'{"did": "tree"}', b'{"did": "tree", "tasks": [[1, 5]]}'])
def test_a_tree_that_cannot_be_read_is_not_taken_for_none(line: bytes) -> None:
    """If that were so, the origin would go on with a copy that runs here, too."""
    written = Journal(ID, role="destination", pid=42, other_host="there")
    with (written.directory / "journal").open("ab") as file:
        file.write(line + b"\n")
    written.abandon()
    assert found() == (pb.Answer.UNDER_WAY, 0)
    assert written.directory.exists()
