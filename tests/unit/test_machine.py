from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from migrate import machine
from migrate.journal.entry import Unreadable
from migrate.machine import Machine
from migrate.states import Outcome, State
from migrate.steps import BY_STATE, STEPS, Step

ROOT = Path(__file__).resolve().parents[2]
#: Those that the machine takes, from the state in which all has been checked and made ready.
TAKEN = STEPS[STEPS.index(next(step for step in STEPS if step.action == "freeze")) :]
ORDER = [State.CHECKED, *(step.after for step in TAKEN)]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.action)
def test_what_may_be_said_is_what_the_row_under_way_says(step: Step) -> None:
    """That it is called off or over may be said in each; what no row has never. First what it sends once."""
    before = STEPS[max(STEPS.index(step) - 1, 0)]
    first, rest = set(step.sends[:1]), {*step.sends[1:], *step.meanwhile}
    assert said_in(step) == {*(before.meanwhile if first else rest), *first, "abort", "goodbye"}
    if first:
        assert said_in(step, *first) == {*rest, "abort", "goodbye"}


def said_in(step: Step, *already: str) -> set[str]:
    """What may be said in it, when some has been said."""
    machine = Machine()
    machine.make_ready(step.action)
    assert all(map(machine.row.may_say, already))
    found = set()
    for kind in {kind for row in STEPS for kind in (*row.sends, *row.waits, *row.meanwhile)} | {"abort"}:
        machine.again()
        assert all(map(machine.row.may_say, already))
        found |= {kind} if machine.row.may_say(kind) else set()
    return found


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.action)
def test_what_is_waited_for_and_journalled_comes_in_the_order_of_its_row(step: Step) -> None:
    machine = Machine()
    for column, may in ((step.waits, "may_wait"), (step.here, "may_write")):
        machine.make_ready(step.action)
        some: list[Any] = [*column]
        for one in (each for each in some for _ in range(2)):
            assert getattr(machine.row, may)(one)
        assert [getattr(machine.row, may)(one) for one in some] == [one is some[-1] for one in some]
        machine.again()
        assert all(getattr(machine.row, may)(one) for one in some)
        assert not getattr(machine.row, may)("ask" if may == "may_wait" else Unreadable)
    assert machine.row.may_wait("aborted")


def test_a_step_that_failed_stays_under_way() -> None:
    machine = taken(State.DUMPED)
    assert machine.begin().action == machine.row.step.action == "isolate"
    assert machine.row.may_say("connections") and not machine.row.may_say("switch")


def taken(state: State) -> Machine:
    """A machine that has reached *state*."""
    made = Machine()
    while made.state is not state:
        step = made.begin()
        if step.action == "commit":
            made.give_away()
        made.done(step)
    return made


def test_every_step_begins_where_the_last_one_ended() -> None:
    assert [step.before for step in STEPS[1:]] == [step.after for step in STEPS[:-1]]
    assert list(State) == [STEPS[0].before, *ORDER]
    assert taken(State.RELEASED).step is None


def test_one_step_leaves_a_state() -> None:
    assert [BY_STATE[state] for state in ORDER[:-1]] == list(TAKEN)
    assert {step.before for step in STEPS if step not in BY_STATE.values()} == {State.STARTED, State.CHECKED}


def test_nothing_is_touched_before_the_first_step_begins() -> None:
    assert Machine().failed() is Outcome.UNTOUCHED


@pytest.mark.parametrize("state", ORDER[1:])
def test_outcome_of_a_failure_in_a_state(state: State) -> None:
    expected = {
        State.COMMITTED: Outcome.IN_DOUBT,
        State.ACTIVATED: Outcome.MOVED,
        State.RELEASED: Outcome.MOVED,
    }
    made = taken(state)
    assert made.failed() is expected.get(state, Outcome.ROLLED_BACK)
    assert made.given_away == (state in expected)


@pytest.mark.parametrize("step", TAKEN, ids=lambda step: step.action)
def test_outcome_of_a_failure_within_a_step(step: Step) -> None:
    """Until the message that gives the process away is sent, its step can be undone like the others."""
    made = taken(step.before)
    made.begin()
    expected = {"activate": Outcome.IN_DOUBT, "release": Outcome.MOVED}
    assert made.failed() is expected.get(step.action, Outcome.ROLLED_BACK)
    if step.action == "commit":
        made.give_away()
        assert made.failed() is Outcome.IN_DOUBT


def test_what_was_surely_not_sent_is_taken_back() -> None:
    made = taken(State.COMMITTED)
    made.take_back()
    assert (made.state, made.failed(), made.given_away) == (State.SWITCHED, Outcome.ROLLED_BACK, False)
    with pytest.raises(ValueError, match="nothing to take back"):
        made.take_back()


def test_undos_by_state() -> None:
    """What a failure in each state has to undo, the last first; CRIU's end is waited for after the tasks."""
    undos: list[str] = []
    by_state = {}
    for step in STEPS:
        undos = [*(kind.word for kind in step.here[::-1]), *undos]
        by_state[step.after] = undos
    assert by_state[State.CHECKED] == ["isolation", "images", "at-unit", "at-podman", "container"]
    first = ["criu", "freezer", "isolation", "images", "at-unit", "at-podman", "container"]
    assert by_state[State.FROZEN] == first
    assert by_state[State.DUMPED] == ["keeper", "calls", "stop", "limit", *first]
    assert by_state[State.ISOLATED] == ["repair", "keeper", "calls", "stop", "limit", *first]
    assert by_state[State.STREAMED] == by_state[State.RESTORED] == by_state[State.ISOLATED]
    assert by_state[State.SWITCHED] == ["switch", "repair", "keeper", "calls", "stop", "limit", *first]
    assert by_state[State.COMMITTED] == by_state[State.RELEASED] == by_state[State.SWITCHED]


def test_nothing_is_journalled_once_it_is_given_away() -> None:
    assert [step.action for step in STEPS if step.gives_away] == ["commit", "activate", "release"]
    assert [step.here + step.there for step in STEPS if step.gives_away] == [()] * 3


def test_steps_cannot_be_mixed_up() -> None:
    made = taken(State.FROZEN)
    with pytest.raises(ValueError, match="does not belong"):
        made.done(TAKEN[0])
    with pytest.raises(ValueError, match="nothing to give away"):
        made.give_away()
    made = taken(State.SWITCHED)
    with pytest.raises(ValueError, match="does not belong"):
        made.done(made.begin())
    with pytest.raises(ValueError, match="no step"):
        taken(State.RELEASED).begin()


def test_list_has_every_step_and_its_outcome() -> None:
    lines = [line.split() for line in machine.listed().splitlines()[1:]]
    assert [line[:2] for line in lines] == [[step.action, step.after.value] for step in STEPS]
    before = ["UNTOUCHED"] * STEPS.index(TAKEN[0])
    assert [line[-1] for line in lines] == [
        *before,
        *["ROLLED_BACK"] * 6,
        *["IN_DOUBT", "IN_DOUBT", "MOVED"],
    ]


def test_the_document_has_the_table_as_it_is_printed() -> None:
    assert f"```\n{machine.whole()}\n```" in (ROOT / "docs/migration.md").read_text()
