"""What each host journals is what the table lets it, and undo goes backwards whatever one entry does.

That each kind can be undone needs no test: one that could not, could not be made.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import migrate
from migrate.journal.entry import Entry
from migrate.recovery import entries, undo
from migrate.recovery.records import Record
from migrate.steps import STEPS

ROOT = Path(migrate.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
#: Those that journal for each of the two hosts, beside what stands in their own rooms.
ALSO = {"here": {"recovery/hold.py"}, "there": {"files/taker.py"}}
ROOMS = {"here": "origin", "there": "destination"}


def journalled(path: Path) -> set[str]:
    """The classes of which *path* gives a new one to a method ``did``."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    dids = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "did"]
    made = [call.args[0].func for call in dids if isinstance(call.args[0], ast.Call)]
    assert len(made) == len(dids), path
    return {ast.unparse(one).removeprefix("entries.") for one in made}


def of_side(side: str) -> set[str]:
    """What the sources of one host journal."""
    names = {path: path.relative_to(ROOT).as_posix() for path in SOURCES}
    its = [path for path, name in names.items() if name in ALSO[side] or name.startswith(ROOMS[side] + "/")]
    return set().union(*map(journalled, its))


def test_every_kind_is_in_the_table_and_the_other_way_round() -> None:
    assert {kind for step in STEPS for kind in step.here + step.there} == set(entries.KINDS)
    assert len({kind.word for kind in entries.KINDS}) == len(entries.KINDS)


def test_each_host_journals_what_the_table_lets_it() -> None:
    assert of_side("here") == {kind.__name__ for step in STEPS for kind in step.here}
    assert of_side("there") == {kind.__name__ for step in STEPS for kind in step.there}
    assert set().union(*map(journalled, SOURCES)) == of_side("here") | of_side("there")


def test_undo_goes_backwards_and_one_failure_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def undone(entry: Entry) -> str:
        done.append(entry.kind)
        return entry.kind

    def fails(entry: Entry) -> str:
        raise OSError(5, "broken")

    for kind in entries.KINDS:
        monkeypatch.setattr(kind, "undo", fails if kind is entries.Stop else undone)
    noted = [entries.Isolation("x"), entries.Images("/none"), entries.Stop(()), entries.Switch({})]
    said, problems = undo.roll_back(Record("0123456789ab", entries=noted))
    assert done == said == ["switch", "images", "isolation"]
    assert len(problems) == 1 and problems[0].startswith("stop: ") and "broken" in problems[0]
