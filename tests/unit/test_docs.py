"""Everything that the documentation names is there: tests, files, calls of the library, fields of an ICI."""

from __future__ import annotations

import ast
import dataclasses
import re
from functools import lru_cache
from pathlib import Path

import pytest

import tcpcp
from tcpcp import ici

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("[bep]*/README.md"))]
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
FOLDERS = "benchmarks|docs|examples|images|migrate|plugin|tests|tools"
FILE = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w/]*(?:\.\w+)?")
LINK = re.compile(r"\]\(([^)#:]+)\)")
CALL = re.compile(r"\btcpcp\.(\w+)")
FIELD = re.compile(r"`(negotiated|timestamp|window)\.(\w+)`((?:, `\.\w+`)*)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@lru_cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pages
def test_tests(page: Path) -> None:
    for file, name in TEST.findall(page.read_text()):
        assert name in functions(ROOT / file), f"{file}::{name}"


@pages
def test_files(page: Path) -> None:
    text = page.read_text()
    named = [ROOT / path for path in FILE.findall(text)] + [page.parent / path for path in LINK.findall(text)]
    assert [path for path in named if not path.exists()] == []


@pages
def test_calls(page: Path) -> None:
    """The names of the library, and of its modules."""
    named = set(CALL.findall(page.read_text())) - {"txt"}
    modules = {path.stem for path in (ROOT / "plugin" / "tcpcp").glob("*.py")}
    assert [name for name in named if not hasattr(tcpcp, name) and name not in modules] == []


@pages
def test_fields(page: Path) -> None:
    for part, first, others in FIELD.findall(page.read_text()):
        fields = {field.name for field in dataclasses.fields(getattr(ici, part.capitalize()))}
        assert {first, *re.findall(r"\w+", others)} <= fields, part


def test_something_is_named() -> None:
    """What the expressions above find is not nothing."""
    text = "".join(page.read_text() for page in PAGES)
    assert len(TEST.findall(text)) > 50
    assert all(len(found.findall(text)) > 4 for found in (FILE, LINK, CALL, FIELD))
