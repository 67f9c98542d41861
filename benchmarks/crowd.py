"""1000 clients that ask at random: the worst answer, and what the peer's kernel had to repeat."""

from __future__ import annotations

import statistics
from functools import partial

import movers
from arena import Arena, Metrics, Plan, Series
from movers import MIGRATE, Mover
from rows import Row, Target, at_most, row

NAME = "1000 clients, each asks every 50 to 150 ms"
CLIENTS = 1000
SLACK_MS = 20.0
COUNTED = {"RetransSegs": "segments sent again", "TCPTimeouts": "timeouts", "TCPLossProbes": "loss probes"}


def move(mover: Mover) -> Metrics:
    """One move under all of them."""
    with Arena() as lab:
        pid = lab.serve()
        client = lab.peer("crowd.py", CLIENTS)
        told = mover(lab, pid)
        said = client.told()
        keys = ("worst_ms", "worst_before_ms", "lost", *COUNTED)
        frozen_ms = said.get("server", {}).get("longest_ms")
        late = {} if frozen_ms is None else {"frozen_ms": frozen_ms, "late_ms": said["worst_ms"] - frozen_ms}
        return told | {key: float(said[key]) for key in keys} | late


def near(series: dict[str, Series]) -> Target:
    """The worst answer against the time for which the process stood still in the same runs."""
    gaps = series[MIGRATE].of("frozen_ms")
    limit_ms = (statistics.median(gaps) if gaps else 0.0) + SLACK_MS
    return Target(f"at most gap + {SLACK_MS:g} ms", lambda medians: medians[MIGRATE] <= limit_ms)


def run(plan: Plan) -> list[Row]:
    """One case."""
    competitors = {who: partial(move, mover) for who, mover in movers.two_movers().items()}
    series = plan.alternate("1000 clients", competitors)
    targets = {
        "RetransSegs": Target("at most 1 per 100 connections", lambda m: m[MIGRATE] <= CLIENTS / 100),
        "TCPTimeouts": at_most(0, ""),
    }
    return [
        row(NAME, "worst answer during the move", "ms", series, "worst_ms", target=near(series)),
        row(NAME, "worst answer in the second before", "ms", series, "worst_before_ms"),
        row(NAME, "process did not run", "ms", series, "frozen_ms"),
        row(NAME, "connections lost or unanswered", "", series, "lost", target=at_most(0, "")),
        *(
            row(NAME, f"{what}, on the peer", "", series, key, target=targets.get(key))
            for key, what in COUNTED.items()
        ),
    ]
