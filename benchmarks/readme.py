"""Writes the figures of results.json into the README; ``--check`` only says whether they are there.

Pure but for :func:`main`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import host_facts
from movers import MIGRATE, NFTABLES
from rows import number

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE.parent / "README.md", HERE / "results.json"
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
    """Whether the README has room for *row*: where something was aimed at, and what a user asks first."""
    return bool(row["target"]) or any(word in row["what"] for word in ASKED_FIRST)


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


def filled(readme: str, results: dict[str, Any]) -> str:
    """*readme* with the figures of *results* between the marks.

    :raises ValueError: there are no marks.
    """
    begin, end = readme.index(BEGIN) + len(BEGIN), readme.index(END)
    return readme[:begin] + block(results) + readme[end:]


def main() -> int:
    """Write, or check; 1 if what is there is something else."""
    before = README.read_text()
    after = filled(before, json.loads(RESULTS.read_text()))
    if "--check" in sys.argv[1:]:
        return int(before != after)
    README.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
