"""Which rooms of the two packages may import which: the arrows point down, and there is no circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: From the roof to the ground; each room may import those named, which stand below it, and the files that stand
#: beside the rooms except the commands. The messages (pb) are for everybody. The table of the steps is a file, but
#: stands here: it names what is journalled, and only those above it may look at it.
MIGRATE: dict[str, str] = {
    "testing": "criu journal memory processes runtime switch transport",
    "origin": (
        "checks criu events files gap inventory journal link machine memory processes recovery report runtime steps"
        " switch transport"
    ),
    "destination": "criu events files gap inventory journal link order processes recovery runtime switch",
    "machine": "journal steps",
    "order": "journal steps",
    "steps": "files journal recovery",
    "checks": "criu inventory",
    "recovery": "criu events files gap journal link processes report runtime switch transport",
    "runtime": "criu inventory processes",
    "inventory": "criu files processes",
    "criu": "files processes",
    "files": "journal link processes",
    "transport": "journal link ssh",
    "journal": "events processes",
    "memory": "processes",
    "report": "link",
    "gap": "",
    "switch": "processes ssh",
    "ssh": "",
    "link": "",
    "processes": "",
    "events": "",
    "lab": "",
}
TCPCP: dict[str, str] = {
    "helper": "endpoint kernel record",
    "criu": "endpoint kernel record",
    "endpoint": "kernel record",
    "kernel": "record",
    "record": "",
}
PACKAGES = {"migrate": (ROOT / "migrate", MIGRATE), "tcpcp": (ROOT / "plugin/tcpcp", TCPCP)}
#: Files beside the rooms that import rooms; no room imports them.
ABOVE = {
    "migrate": {"start", "cli", "arguments", "doctor", "reached", "wanted"},
    "tcpcp": {"cli", "aio"},
}
#: What the daemon does for its users is what the library does for a program.
FACADES = {("helper", "tcpcp")}


def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file."""
    root = PACKAGES[package][0]
    paths = {
        ".".join(path.relative_to(root.parent).with_suffix("").parts): path for path in root.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imported(path: Path, package: str, names: set[str]) -> Iterator[str]:
    """Yield the modules of *package* that the file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] == package)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, f"{path}:{node.lineno}: a relative import"
            if node.module.split(".")[0] == package:
                for one in node.names:
                    full = f"{node.module}.{one.name}"
                    yield full if full in names else node.module


@pytest.mark.parametrize("line", ["from . import link", "from ..link import frames"])
def test_a_relative_import_goes_past_nobody(tmp_path: Path, line: str) -> None:
    path = tmp_path / "some.py"
    path.write_text(f"import os\n\n\ndef late():\n    {line}\n")
    with pytest.raises(AssertionError, match=r"some\.py:5: a relative import"):
        list(imported(path, "migrate", set()))


def room(name: str, package: str) -> str:
    """The room of a module; of a file beside the rooms its own name, of the package the package's."""
    return name.split(".")[1] if "." in name else package


def arrows(package: str) -> set[tuple[str, str, str]]:
    """(room, room that it imports, file)."""
    found = modules(package)
    return {
        (room(name, package), room(other, package), name)
        for name, path in found.items()
        for other in imported(path, package, set(found))
        if room(name, package) != room(other, package)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_each_room_imports_only_what_stands_below_it(package: str) -> None:
    rooms = PACKAGES[package][1]
    wrong = []
    for start, end, name in sorted(arrows(package)):
        if start in rooms:
            allowed = end in rooms[start].split() or (end not in rooms and end not in ABOVE[package])
            if (not allowed or end == package) and (start, end) not in FACADES:
                wrong.append(f"{name} imports {end}")
        elif start not in ABOVE[package] and start != package and end in rooms:
            wrong.append(f"{name}, which stands beside the rooms, imports {end}")
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_goes_down(package: str) -> None:
    order = list(PACKAGES[package][1])
    for name, below in PACKAGES[package][1].items():
        assert all(order.index(one) > order.index(name) for one in below.split()), name


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_is_in_the_table_and_every_arrow_of_it_is_drawn(package: str) -> None:
    root, rooms = PACKAGES[package]
    folders = {path.parent.name for path in root.glob("*/__init__.py")}
    assert folders == {"pb", *(name for name in rooms if not (root / f"{name}.py").exists())}
    drawn = {(start, end) for start, end, _ in arrows(package)}
    assert {(name, one) for name, below in rooms.items() for one in below.split()} <= drawn


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_imports(package: str) -> None:
    found = modules(package)
    left = {name: set(imported(path, package, set(found))) - {name} for name, path in found.items()}
    # A package that passes its modules' names on is no part of a circle with them.
    left = {name: {one for one in others if not name.startswith(one + ".")} for name, others in left.items()}
    while free := {name for name, others in left.items() if not others & set(left)}:
        left = {name: others for name, others in left.items() if name not in free}
    assert left == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_first_line_of_every_file_says_what_it_is(package: str) -> None:
    for name, path in modules(package).items():
        if path.read_text() and ".pb" not in name:
            first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
            assert first.endswith((".", ":")), name
