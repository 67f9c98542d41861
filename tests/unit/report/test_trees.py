"""The table of `migrate ps`: it fits the terminal, and says what the row says."""

from __future__ import annotations

import json
from dataclasses import replace

from harness import json_lines
from hypothesis import given
from hypothesis import strategies as st

from migrate.errors import Reason
from migrate.report import trees
from migrate.report.trees import Row

ROW = Row(
    pid=4711,
    program="redis-server",
    user="redis",
    unit="redis-server.service",
    listens=["10.77.1.100:6379", "[fd77:1::100]:6379", "*:7001", "*:7002", "*:7003"],
    addresses=["10.77.1.100"],
    connections=12,
    memory_bytes=123 << 20,
    movable=True,
)


def test_who_it_is_and_where() -> None:
    assert trees.lines(ROW) == [
        "   4711 redis-server    redis         12  123.0 MiB yes     redis-server.service",
        "        listens on 10.77.1.100:6379, [fd77:1::100]:6379, *:7001 and 2 more",
        "        connected at 10.77.1.100",
    ]


def test_the_first_reason_is_told_and_the_others_are_counted() -> None:
    reasons = [Reason("a", "origin", f"the reason {number}", "Do it.") for number in range(3)]
    refused = replace(ROW, listens=[], addresses=[], movable=False, reasons=reasons)
    first, told = trees.lines(refused)
    assert " no " in first and told == "        the reason 0 (2 more reasons)"
    assert trees.lines(replace(refused, reasons=reasons[:2]))[1].endswith("(1 more reason)")
    container = replace(ROW, container="web@podman", movable=None)
    assert " ? " in trees.lines(container)[0] and trees.lines(container)[0].endswith("web@podman")


@given(st.text(), st.text(), st.lists(st.text()), st.text(), st.integers(0, 1 << 50), st.integers(40, 200))
def test_it_fits_and_steers_no_terminal(
    program: str, unit: str, places: list[str], reason: str, memory_bytes: int, columns: int
) -> None:
    reasons = [Reason("a", "origin", reason, "")]
    row = replace(ROW, program=program, unit=unit, listens=places, memory_bytes=memory_bytes, reasons=reasons)
    for line in (trees.head(columns), *trees.lines(row, columns)):
        assert len(line) <= columns and line.isprintable()


def test_its_json_fits_the_schema() -> None:
    first = {"schema": 1, "time": "2026-11-28T06:42:44.123456Z", "id": "", "role": "origin", "event": "tree"}
    for row in (
        ROW,
        replace(ROW, movable=None),
        replace(ROW, reasons=[Reason("a", "origin", "b", "c", (1,))]),
    ):
        (line,) = json_lines.read(json.dumps(first | row.as_json()))
        assert line["pid"] == 4711 and line["movable"] is row.movable
