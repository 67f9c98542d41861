"""Bytes moved, and the gap, against the memory that the process holds."""

from __future__ import annotations

from functools import partial

import movers
from arena import Arena, Metrics, Plan
from movers import Mover
from rows import Row, row

NAME = "Memory of the process"
#: MB held, MB/s written.
CASES = ((10, 0), (100, 0), (100, 20), (1000, 0))
MB = 1e-6
PAUSE_MS = 1


def move(memory_mb: int, writes_mb_per_s: int, mover: Mover) -> Metrics:
    """One move of a process that holds and writes so much; asked once a millisecond."""
    with Arena() as lab:
        pid = lab.serve(memory_mb, writes_mb_per_s)
        client = lab.peer("pingpong.py", PAUSE_MS)
        wire = lab.client("wire.py", "eth0", host="destination")
        told = mover(lab, pid)
        said = client.measured()
        moved = wire.told(f"{said['began_s']} {said['ended_s']}")
        return told | {
            "gap_ms": said["gap_ms"],
            "inside_bytes": float(moved["inside_bytes"]),
            "total_bytes": float(moved["total_bytes"]),
        }


def run(plan: Plan) -> list[Row]:
    """All sizes."""
    rows = []
    for size, writes in CASES[: 3 if plan.quick else None]:
        competitors = {who: partial(move, size, writes, mover) for who, mover in movers.two_movers().items()}
        what = f"{size:,} MB" + (f", {writes} MB/s written" if writes else "")
        series = plan.alternate(what, competitors)
        rows.append(row(NAME, f"{what}: gap", "ms", series, "gap_ms"))
        rows.append(row(NAME, f"{what}: moved in the gap", "MB", series, "inside_bytes", scale=MB))
        rows.append(row(NAME, f"{what}: moved in all", "MB", series, "total_bytes", scale=MB))
    return rows
