"""The unit tests mirror the rooms: a folder is named as the room that it tests, what no room has is beside them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from test_rooms import PACKAGES, imported, modules

HERE = Path(__file__).parent
#: Where the tests of each package's rooms are: of the library as the library itself, beside the driver.
ROOMS = {"migrate": HERE, "tcpcp": HERE / "plugin"}
#: Their ways are looked at with real parts, by what is in migrate/testing.
WITHOUT = {"migrate": {"runtime", "switch", "testing", "transport"}, "tcpcp": set[str]()}
NO_ROOMS = {"golden", "plugin", "__pycache__"}


def used(path: Path, package: str) -> set[str]:
    """Modules of *package* that a test imports, or what it shares with others does."""
    tree = ast.parse(path.read_text())
    named = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    named += [one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names]
    files = [path, *(HERE / f"{name}.py" for name in named if (HERE / f"{name}.py").exists())]
    return {name for file in files for name in imported(file, package, set(modules(package)))}


@pytest.mark.parametrize("package", ROOMS)
def test_each_folder_is_a_room_and_its_tests_are_about_it(package: str) -> None:
    folders = [path for path in ROOMS[package].iterdir() if path.is_dir() and path.name not in NO_ROOMS]
    rooms = {path.parent.name for path in PACKAGES[package][0].glob("*/__init__.py")} - {"pb"}
    assert {folder.name for folder in folders} == rooms - WITHOUT[package]
    for folder in folders:
        tests = [*folder.glob("test_*.py")]
        room = f"{package}.{folder.name}"
        assert tests, folder
        assert [
            one.name for one in tests if not any(f"{u}.".startswith(f"{room}.") for u in used(one, package))
        ] == []
