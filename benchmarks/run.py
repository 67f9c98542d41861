"""``make bench``: all benchmarks, a table of their results, and results.json beside this file.

``run.py [--only NAME ...] [--runs N] [--quick] [--budget S]``. Needs root; every run has a lab of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import connections
import crowd
import gap
import host_facts
import library
import memory
import throughput
from arena import Arena, Plan, Series
from movers import IPTABLES, all_movers
from rows import Row, table

BENCHMARKS: dict[str, Callable[[Plan], list[Row]]] = {
    "gap": gap.run,
    "crowd": crowd.run,
    "connections": connections.run,
    "library": library.run,
    "throughput": throughput.run,
    "memory": memory.run,
}
RESULTS = Path(__file__).resolve().with_name("results.json")
RUNS, BUDGET_S = 5, 820.0


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--runs", type=int, default=0, help=f"of each case and competitor ({RUNS})")
    parser.add_argument("--quick", action="store_true", help="2 runs and without the largest cases")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds, %(default)g")
    parser.add_argument(
        "--output", type=Path, help="where results go as JSON; of a complete run: results.json"
    )
    return parser.parse_args()


def measure(names: list[str], plan: Plan) -> tuple[list[Row], bool]:
    """Run the benchmarks; an interrupt ends measuring and keeps those that are complete.

    :return: the rows, and whether nothing is missing.
    """
    rows: list[Row] = []
    try:
        for name in names:
            rows += BENCHMARKS[name](plan)
    except KeyboardInterrupt:
        print("interrupted: the rest is not measured", file=sys.stderr)
        return rows, False
    finally:
        Arena.wait_ended()
    return rows, names == list(BENCHMARKS) and not plan.quick


def raw(measured: dict[str, dict[str, Series]]) -> dict[str, Any]:
    """Every run with all that was measured and told, for questions that come later."""
    return {
        case: {who: {"runs": series.runs, "failures": series.failures} for who, series in of_case.items()}
        for case, of_case in measured.items()
    }


def main() -> int:
    """Measure, print, write; 1 if a run failed or something is missing."""
    chosen = options()
    if os.geteuid() != 0:
        sys.exit("run.py: needs root: it makes namespaces")
    # As an interrupt from the keyboard: the lab that is up goes down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    facts = host_facts.describe()
    plan = Plan(chosen.runs or (2 if chosen.quick else RUNS), chosen.budget, quick=chosen.quick)
    began = time.monotonic()
    rows, complete = measure(chosen.only, plan)
    facts["took_s"] = round(time.monotonic() - began)
    results = {
        "machine": facts,
        "runs": plan.runs,
        "rows": [row.as_json() for row in rows],
        "cases": raw(plan.measured),
    }
    output = chosen.output or (RESULTS if complete else None)
    if output:
        output.write_text(json.dumps(results, indent=1) + "\n")
    show(facts, plan, rows)
    failed = any(series.failures for case in plan.measured.values() for series in case.values())
    return int(failed or len({row.benchmark for row in rows}) < len(chosen.only))


def show(facts: dict[str, object], plan: Plan, rows: list[Row]) -> None:
    """The table, with what must be known to read it."""
    print(f"\n{host_facts.sentence(facts)}\n\nMedian (least to most) of {plan.runs} runs each.")
    if IPTABLES not in all_movers():
        print("Stock CRIU with its iptables lock was not measured: iptables is not installed.")
    print(f"\n{table(rows)}")
    for case, of_case in plan.measured.items():
        for who, series in of_case.items():
            for text in series.failures:
                print(f"\nfailed: {case}, {who}: {text}")


if __name__ == "__main__":
    sys.exit(main())
