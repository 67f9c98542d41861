"""Writes the figures of results.json into the READMEs; ``--check`` only says whether they are there.

Five lines into that of the project, all that matters into that of the benchmarks.

Pure but for :func:`main`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import host_facts
from movers import MIGRATE, NFTABLES
from rows import number

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
ASKED_FIRST = ("gap", "frozen", "isolated", "in all", "worst answer during", "loss probes")
BEGIN, END = "<!-- figures: benchmarks/readme.py -->\n", "<!-- end of figures -->\n"


def block(results: dict[str, Any]) -> str:
    """The machine, ratios and medians, with what was aimed at."""
    lines = [
        host_facts.sentence(results["machine"]),
        "",
        f"Medians of {results['runs']} runs. A ratio of 3 means three times better than stock CRIU.",
        "",
        "| | ratio | `migrate` | stock CRIU | aimed at |",
        "|---|---:|---:|---:|---|",
    ]
    before = ""
    for row in filter(shown, results["rows"]):
        if row["benchmark"] != before:
            before = row["benchmark"]
            lines.append(f"| **{before}** | | | | |")
        lines.append(line(row))
    return "\n".join([*lines, ""])


def shown(row: dict[str, Any]) -> bool:
    """Whether the table has room for *row*: where something was aimed at, and what a user asks first."""
    return bool(row["target"]) or any(word in row["what"] for word in ASKED_FIRST)


class Line(NamedTuple):
    """One of the five: *words*, and the row, by its *benchmark* and *what*."""

    words: str
    benchmark: str
    what: str


FIVE = (
    Line("Longest silence, small server, ping-pong", "Gap seen by the peer", "ping-pong: longest silence"),
    Line("Worst answer to 1,000 busy clients", "1000 clients", "worst answer during the move"),
    Line("Frozen with 10,000 connections", "Many connections", "10,000 connections: frozen"),
    Line("Longest silence with 100 MB, 20 MB/s written", "Memory", "100 MB, 20 MB/s written: gap"),
    Line("Segment size after the move, of 1,448 bytes", "Throughput", "sends during the move: segment after"),
)


def five(results: dict[str, Any]) -> str:
    """What a user asks first, in five lines.

    :raises StopIteration: there is no such row.
    """
    lines = ["| | `migrate` | stock CRIU |", "|---|---:|---:|"]
    for words, benchmark, what in FIVE:
        row = next(
            one for one in results["rows"] if one["what"] == what and one["benchmark"].startswith(benchmark)
        )
        cells = [cell(row["competitors"].get(who), row["unit"]) for who in (MIGRATE, NFTABLES)]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


#: Where what goes.
DOCUMENTS = {HERE.parent / "README.md": five, HERE / "README.md": block}


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    ratio = "" if row["ratio"] is None else f"**{row['ratio']:.1f}**"
    aim = f"{row['target']['text']}: {row['target']['verdict']}" if row["target"] else ""
    cells = [cell(row["competitors"].get(who), row["unit"]) for who in (MIGRATE, NFTABLES)]
    return "| " + " | ".join([row["what"], ratio, *cells, aim]) + " |"


def cell(competitor: dict[str, Any] | None, unit: str) -> str:
    """A competitor's median."""
    if competitor is None:
        return ""
    if "median" not in competitor:
        return "failed"
    return f"{number(competitor['median'])} {unit}".rstrip()


def filled(document: str, figures: str) -> str:
    """*document* with *figures* between the marks.

    :raises ValueError: there are no marks.
    """
    begin, end = document.index(BEGIN) + len(BEGIN), document.index(END)
    return document[:begin] + figures + document[end:]


def main() -> int:
    """Write, or check; 1 if what is there is something else."""
    results, wrong = json.loads(RESULTS.read_text()), False
    for path, figures in DOCUMENTS.items():
        before = path.read_text()
        after = filled(before, figures(results))
        wrong |= before != after
        if "--check" not in sys.argv[1:]:
            path.write_text(after)
    return int(wrong and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
