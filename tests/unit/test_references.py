"""What docstrings refer to by name is there: every ``:mod:``, ``:func:``, ``:class:``, ``:data:``, ``:meth:``."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for root in (ROOT / "migrate", ROOT / "plugin/tcpcp", ROOT / "tests")
    for path in root.rglob("*.py")
    if "pb" not in path.parts
)
REFERENCE = re.compile(r":(?:mod|func|class|data|meth|exc):`~?((?:migrate|tcpcp)(?:\.\w+)*)`")


def resolve(name: str) -> object:
    """The module, or the member of one, that *name* is. :raises AttributeError, ModuleNotFoundError: none is."""
    parts = name.split(".")
    found: object = importlib.import_module(parts[0])
    for at, part in enumerate(parts[1:], 2):
        if isinstance(found, ModuleType) and not hasattr(found, part):
            importlib.import_module(".".join(parts[:at]))
        found = _member(found, part)
    return found


def _member(owner: object, name: str) -> object:
    """Also a field of a dataclass, which an instance has and the class perhaps not."""
    if isinstance(owner, type) and name in getattr(owner, "__annotations__", {}):
        return owner.__annotations__[name]
    return getattr(owner, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_references_resolve(path: Path) -> None:
    for name in REFERENCE.findall(path.read_text()):
        resolve(name)


def test_the_pattern_finds_them() -> None:
    assert sum(len(REFERENCE.findall(path.read_text())) for path in FILES) > 100
