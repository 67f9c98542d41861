"""The gap that one peer sees: a small Python server, one connection, asked without pause or streaming."""

from __future__ import annotations

from functools import partial

import movers
from arena import Arena, Metrics, Plan
from movers import MIGRATE, NFTABLES, Mover
from rows import Medians, Row, Target, row

NAME = "Gap seen by the peer, 1 connection, small Python server"
PATTERNS = {"ping-pong": "pingpong.py", "stream of 1000 messages/s": "stream.py"}
LIMIT_MS, SHARE = 40.0, 1 / 8


def move(script: str, mover: Mover) -> Metrics:
    """One move under one connection."""
    with Arena() as lab:
        pid = lab.serve()
        client = lab.peer(script)
        told = mover(lab, pid)
        said = client.measured()
        keys = ("gap_ms", "disturbed_ms")
        return told | {key: said[key] for key in keys} | {"frozen_ms": said["server"]["longest_ms"]}


def near(medians: Medians) -> bool:
    """What was aimed at."""
    return medians[MIGRATE] <= LIMIT_MS and medians[MIGRATE] <= SHARE * medians[NFTABLES]


def run(plan: Plan) -> list[Row]:
    """Both patterns."""
    rows = []
    target = Target(f"at most {LIMIT_MS:g} ms and 1/8 of stock's", near)
    for name, script in PATTERNS.items():
        competitors = {who: partial(move, script, mover) for who, mover in movers.all_movers().items()}
        series = plan.alternate(f"gap, {name}", competitors)
        rows.append(row(NAME, f"{name}: longest silence", "ms", series, "gap_ms", target=target))
        rows.append(row(NAME, f"{name}: sum of silences over 10 ms", "ms", series, "disturbed_ms"))
        rows.append(row(NAME, f"{name}: process did not run", "ms", series, "frozen_ms"))
    return rows
