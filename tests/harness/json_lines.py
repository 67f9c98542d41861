"""Lines of ``migrate --json``, held against the schema that is installed with the package; a library judges."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import fastjsonschema

SCHEMA: dict[str, Any] = json.loads(
    resources.files("migrate.report").joinpath("events.schema.json").read_text()
)
#: For each kind by itself: what is wrong is told of the field, and not that none of the kinds fits.
_checks = {one["title"]: fastjsonschema.compile(one) for one in SCHEMA["oneOf"]}


def read(output: str) -> list[dict[str, Any]]:
    """The objects of *output*, one a line, each of which fits the schema.

    A version from before there was one says so in none of its lines.
    """
    lines = [json.loads(line) for line in output.splitlines()]
    for line in lines if any("schema" in line for line in lines) else ():
        assert line["event"] in _checks, line
        _checks[line["event"]](line)
    return lines
