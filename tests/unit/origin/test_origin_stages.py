"""The stages of the origin are the table's: each has one successor, says what its row says, and is used once."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from migrate.machine import Machine
from migrate.origin import handover, prepare, session, stage
from migrate.origin import plan as plan_
from migrate.origin.attempt import Attempt
from migrate.origin.freeze import Prepared
from migrate.origin.frozen import NoneKilled
from migrate.origin.move import Held
from migrate.origin.stage import Stage
from migrate.origin.stages import _restore_message
from migrate.states import State
from migrate.steps import BY_STATE, STEPS, Step
from tests.unit.test_shape import MOST_ATTRIBUTES, stored

#: What stands for a message where it is not made on the spot.
MADE_BY = {"_restore_message": "restore", "_hello": "hello", "message": "restore", "process": "process"}
#: Where else than in its stage's class a step is taken.
ELSEWHERE: dict[str, list[Any]] = {
    "connect": [session.opened, session.greeted, session._greeting],
    "check": [plan_.check],
    "prepare": [prepare._prepare],
    "freeze": [Attempt.freeze],
}


def successors() -> Iterator[tuple[type[Stage], type[Stage]]]:
    """Each stage's class and that of the next one, as mypy sees them."""
    here: type[Stage] = Prepared
    while here is not handover.Released:
        after = get_type_hints(here._next, {**vars(inspect.getmodule(here))})["return"]
        yield here, after
        here = after


CHAIN = list(successors())


def test_there_is_a_stage_for_each_state_and_each_leads_to_the_next() -> None:
    assert [(here.state, after.state) for here, after in CHAIN] == [
        (step.before, step.after) for step in STEPS if step in BY_STATE.values() and step.action != "check"
    ]


def begun_by_name() -> Iterator[str]:
    """Rows that are begun by their names, anywhere in the origin; each name is a literal."""
    for path in sorted(Path(inspect.getfile(session)).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "make_ready":
                yield ast.literal_eval(node.args[0])


def test_every_row_is_begun_and_in_one_place() -> None:
    """The first one is under way when a migration begins, those of the stages are begun with them."""
    by_stages = [BY_STATE[here.state].action for here, _ in CHAIN]
    begun = [Machine().row.step.action, *begun_by_name(), *by_stages]
    assert sorted(begun) == sorted(step.action for step in STEPS)


def taken_by(step: Step) -> list[Any]:
    """The sources of one step."""
    return ELSEWHERE.get(step.action, []) + [here for here, _ in CHAIN if BY_STATE[here.state] is step]


def calls(step: Step, of: str, method: str) -> list[str]:
    """First arguments of calls of *method* of what is named *of*, in the sources of *step*."""
    sources = [ast.parse(textwrap.dedent(inspect.getsource(one))) for one in taken_by(step)]
    nodes = [node for source in sources for node in ast.walk(source) if isinstance(node, ast.Call)]
    called = [(node, node.func) for node in nodes if isinstance(node.func, ast.Attribute)]
    return [name(node.args[0]) for node, func in called if func.attr == method and name(func.value) == of]


def name(argument: ast.expr) -> str:
    """A text, or the last part of a name, or of what is called."""
    if isinstance(argument, ast.Call):
        argument = argument.func
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    if isinstance(argument, ast.Attribute):
        return argument.attr
    return argument.id if isinstance(argument, ast.Name) else ""


def kind(name: str) -> str:
    return MADE_BY.get(name, {"HostInventory": "host"}.get(name, name.lower()))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.action)
def test_what_a_step_says_and_waits_for_is_what_its_row_says(step: Step) -> None:
    """Questions about files, pieces of them, and connections go through others, and are theirs to test."""
    assert tuple(map(kind, calls(step, "link", "send"))) == step.sends
    assert tuple(map(kind, calls(step, "link", "expect"))) == tuple(
        one for one in step.waits if one != "compared"
    )


@pytest.mark.parametrize("step", STEPS[4:], ids=lambda step: step.action)
def test_what_a_step_journals_is_what_its_row_lets_it(step: Step) -> None:
    """The hold, which has entries of its own, is asked in two of them."""
    held = {"freeze": {"Freezer"}, "dump": {"Keeper"}}
    journalled = {*calls(step, "journal", "did"), *held.get(step.action, set())}
    assert journalled == {kind.__name__ for kind in step.here}


def test_restore_message_is_a_restore() -> None:
    assert get_type_hints(_restore_message)["return"].__name__ == "Restore"


class Endless(Stage):
    state = State.FROZEN

    def _next(self) -> Stage:
        return self


def test_a_stage_is_used_once() -> None:
    nothing: Any = None
    one = Endless(nothing, nothing)
    assert one.take() is one
    with pytest.raises(RuntimeError, match="Endless was used before"):
        one.take()


def test_no_stage_has_many_attributes() -> None:
    """With those that it has of the classes that it is derived from."""
    for here in {*(here for here, _ in CHAIN), stage.Stage, stage.Still}:
        sources = (ast.parse(textwrap.dedent(inspect.getsource(cls))) for cls in here.__mro__[:-2])
        assert len({one.attr for tree in sources for one in stored(tree)}) <= MOST_ATTRIBUTES


# --- what is given back --------------------------------------------------------------------------------


def noted(stack: ExitStack, into: list[str], *names: str) -> None:
    for one in names:
        stack.callback(into.append, one)


def test_what_is_held_is_given_back_in_its_order_whenever_it_was_had() -> None:
    """The keeper lets go before CRIU is hung up, and the sockets are the last."""
    held, done = Held(), list[str]()
    noted(held.kept, done, "hold", "sender")
    noted(held.freeze, done, "clock", "criu", "pages")
    noted(held.freeze, done, "dump", "tree")
    noted(held.sockets, done, "sockets")
    held.let_go()
    assert done == ["sender", "hold", "tree", "dump", "pages", "criu", "clock", "sockets"]
    held.let_go()
    assert len(done) == 8


def test_one_that_cannot_be_given_back_keeps_none_of_the_others() -> None:
    held, done = Held(), list[str]()
    noted(held.sockets, done, "sockets")
    held.freeze.callback(lambda: 1 // 0)
    noted(held.kept, done, "hold")
    with pytest.raises(ZeroDivisionError):
        held.let_go()
    assert done == ["hold", "sockets"]


def test_a_try_to_freeze_is_given_back_alone() -> None:
    held, done = Held(), list[str]()
    noted(held.kept, done, "hold")
    noted(held.freeze, done, "criu")
    held.freeze.close()
    assert done == ["criu"]
    noted(held.freeze, done, "criu again")
    held.let_go()
    assert done == ["criu", "hold", "criu again"]


def test_only_a_tree_that_is_frozen_is_looked_at() -> None:
    class Tree:
        looks: list[State] = []  # noqa: RUF012

        def require(self) -> None:
            self.looks.append(machine.state)

    tree: Any = Tree()
    machine = Machine()
    look = NoneKilled(machine)
    look()
    with look.looking_at(tree):
        look()
        machine.done(BY_STATE[State.CHECKED])
        look()
    look()
    assert Tree.looks == [State.CHECKED, State.FROZEN]
