"""The golden images mean the same to a reader that knows only images/README.md (paper section 4: portable).

That stands in for a machine of another byte order: what it reads it reads octet by octet.
"""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import independent_reader
import pytest
from golden_icis import DIRECTORY, GOLDEN
from hypothesis import given
from strategies import icis

from tcpcp import Ici, dumps

DERIVED = ("snd_una", "write_seq", "copied_seq")


def expected(ici: Ici) -> dict[str, Any]:
    fields = dataclasses.asdict(ici)
    fields["state"] = ici.state.name
    for end in ("local", "peer"):
        fields[end]["ip"] = str(fields[end]["ip"])
    return fields | {name: getattr(ici, name) for name in DERIVED}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_image(name: str) -> None:
    assert independent_reader.read((DIRECTORY / f"{name}.ici").read_bytes()) == [expected(GOLDEN[name])]


@given(icis())
def test_any_ici(ici: Ici) -> None:
    assert independent_reader.read(dumps(ici) * 2) == [expected(ici)] * 2


def test_it_is_independent() -> None:
    tree = ast.parse(Path(independent_reader.__file__).read_text())
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert imported == {"__future__", "ipaddress", "zlib", "typing"}
