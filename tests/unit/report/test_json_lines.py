"""`migrate --json`: its schema, and what docs/json.md says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from harness import json_lines

from migrate.errors import Exit
from migrate.report import observer as ui
from migrate.states import Outcome

DOCUMENT = Path(__file__).parents[3] / "docs" / "json.md"
KINDS: dict[str, dict[str, Any]] = {one["title"]: one["properties"] for one in json_lines.SCHEMA["oneOf"]}


def fields(properties: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, one in properties.items():
        yield before + name
        inner = one.get("properties") or one.get("items", {}).get("properties", {})
        yield from fields(inner, f"{before}{name}.")


@pytest.mark.parametrize("kind", KINDS)
def test_the_document_has_every_field_and_no_other(kind: str) -> None:
    first, *parts = re.split(r"^## `(\w+)`$", DOCUMENT.read_text(), flags=re.MULTILINE)
    tables = [first, dict(zip(parts[::2], parts[1::2], strict=True))[kind]]
    rows = [set(re.findall(r"^\| `([\w.]+)` \|", one, re.MULTILINE)) for one in tables]
    assert set.union(*rows) == set(fields(KINDS[kind]))
    assert not set.intersection(*rows)


def test_all_ends_are_in_it() -> None:
    report = KINDS["report"]
    assert report["outcome"]["enum"] == list(dict.fromkeys(report["outcome"]["enum"]))
    assert set(report["outcome"]["enum"]) == {one.value for one in Outcome}
    assert set(report["exit_status"]["enum"]) == {one.value for one in Exit}
    assert KINDS["phase"]["schema"] == KINDS["report"]["schema"]
    assert report["schema"]["const"] == ui.SCHEMA


@pytest.mark.parametrize(
    "line",
    [
        '{"schema": 1, "event": "note", "text": "without a time"}',
        '{"schema": 1, "time": "2026-11-28T06:42:44.123456Z", "id": "", "role": "origin", "event": "other"}',
        '{"schema": 1, "time": "today", "id": "", "role": "origin", "event": "note", "text": ""}',
        '{"schema": 1, "time": "2026-11-28T06:42:44.123456Z", "id": "", "role": "x", "event": "note", "text": ""}',
    ],
)
def test_what_does_not_fit_is_found(line: str) -> None:
    with pytest.raises((AssertionError, fastjsonschema.JsonSchemaException)):
        json_lines.read(line)
