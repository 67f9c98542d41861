"""The documents name the tests that show what they say: each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted({*HERE.glob("*.md"), *HERE.glob("docs/*.md"), *HERE.glob("*/README.md")})
CONTRIBUTING = HERE / "CONTRIBUTING.md"
#: As pytest names a test; what stands in brackets is left to it.
NAMED = re.compile(r"\b(tests/[\w/]+\.py)::(\w+)")


def named(document: Path) -> set[tuple[str, str]]:
    return set(NAMED.findall(document.read_text()))


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(HERE)))
def test_what_is_named_is_there(document: Path) -> None:
    files = re.findall(r"\btests/[\w/]+\.py\b", document.read_text())
    wrong = [file for file in files if not (HERE / file).exists()]
    wrong += [
        f"{file}::{name}"
        for file, name in sorted(named(document))
        if not (HERE / file).exists() or name not in functions(HERE / file)
    ]
    assert wrong == []


def test_what_is_to_be_touched_is_there() -> None:
    """Files and folders that CONTRIBUTING.md names, as they are written there."""
    names = re.findall(
        r"`((?:migrate|plugin|images|docs|examples|tests|tools)/[\w./]*)`", CONTRIBUTING.read_text()
    )
    assert [name for name in names if not (HERE / name).exists()] == []
    assert len(names) > 20


@pytest.mark.parametrize("name", ["docs/trust.md", "docs/security.md", "docs/paper.md"])
def test_promises_have_tests(name: str) -> None:
    """The pattern above finds what these documents are full of."""
    assert len(named(HERE / name)) > 20
