"""Every undo that the table or the code names has a function."""

from __future__ import annotations

import ast
from pathlib import Path

import migrate
from migrate.journal.journal import Record
from migrate.machine import STEPS
from migrate.recovery import undo

SOURCES = sorted(Path(migrate.__file__).parent.rglob("*.py"))


def journaled(path: Path) -> set[str]:
    """First arguments of calls of a method ``did`` in *path*."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    dids = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "did"]
    return {one.args[0].value for one in dids if isinstance(one.args[0], ast.Constant)}  # type: ignore[misc]


def test_every_undo_of_the_table_has_a_function() -> None:
    assert {name for step in STEPS for name in step.undo} <= set(undo.UNDO)


def test_every_entry_of_a_journal_has_a_function() -> None:
    found = set().union(*map(journaled, SOURCES))
    assert found == set(undo.UNDO)


def test_the_table_names_what_the_origin_journals() -> None:
    origin = next(path for path in SOURCES if path.parts[-2:] == ("origin", "run.py"))
    assert journaled(origin) <= {name for step in STEPS for name in step.undo}


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
