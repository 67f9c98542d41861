"""Every undo that the table or the code names has a function."""

from __future__ import annotations

import ast
from pathlib import Path

import migrate
from migrate.journal.journal import Record
from migrate.recovery import undo
from migrate.steps import STEPS

SOURCES = sorted(Path(migrate.__file__).parent.rglob("*.py"))


def journaled(path: Path) -> set[str]:
    """First arguments of calls of a method ``did`` in *path*."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    dids = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "did"]
    return {one.args[0].value for one in dids if isinstance(one.args[0], ast.Constant)}  # type: ignore[misc]


#: Those that journal for each of the two hosts, beside what stands in their own rooms.
ALSO = {"here": {"recovery/hold.py"}, "there": {"files/taker.py"}}
ROOMS = {"here": "origin", "there": "destination"}


def of_side(side: str) -> set[str]:
    """What the sources of one host journal."""
    root = Path(migrate.__file__).parent
    names = {path: path.relative_to(root).as_posix() for path in SOURCES}
    its = [path for path, name in names.items() if name in ALSO[side] or name.startswith(ROOMS[side] + "/")]
    return set().union(*map(journaled, its))


def test_every_entry_of_the_table_has_an_undo_and_every_undo_an_entry() -> None:
    assert {name for step in STEPS for name in step.here + step.there} == set(undo.UNDO)


def test_each_host_journals_what_the_table_lets_it() -> None:
    assert of_side("here") == {name for step in STEPS for name in step.here}
    assert of_side("there") == {name for step in STEPS for name in step.there}
    assert set().union(*map(journaled, SOURCES)) == of_side("here") | of_side("there")


def test_undo_goes_backwards_and_one_failure_stops_no_other(monkeypatch: object) -> None:
    done: list[str] = []

    def fails(entry: dict[str, object]) -> str:
        raise OSError(5, "broken")

    before = dict(undo.UNDO)
    try:
        for name in ("isolation", "images", "switch"):
            undo.UNDO[name] = lambda entry, name=name: done.append(name) or name  # type: ignore[misc]
        undo.UNDO["stop"] = fails
        entries = [{"did": name} for name in ("isolation", "images", "stop", "switch")]
        undone, problems = undo.roll_back(Record("0123456789ab", entries=entries))
    finally:
        undo.UNDO.update(before)
    assert done == undone == ["switch", "images", "isolation"]
    assert len(problems) == 1 and problems[0].startswith("stop: ") and "broken" in problems[0]
