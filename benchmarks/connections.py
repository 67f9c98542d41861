"""Frozen and isolated time against the number of connections, both measured without asking the tools.

*Frozen* is what the process itself sees on the wall clock. *Isolated* is the longest time in which the peer,
which sends all the time on one connection, gets no segment back from the server's address.
"""

from __future__ import annotations

from functools import partial

import movers
from arena import Arena, Metrics, Plan
from movers import MIGRATE, NFTABLES, Mover
from rows import Row, Target, row

NAME = "Many connections in one process"
COUNTS = (1, 100, 1000, 10_000)
#: From here on the target counts.
LARGE = 10_000


def move(count: int, mover: Mover) -> Metrics:
    """One move of *count* quiet connections and one that is watched."""
    with Arena() as lab:
        pid = lab.serve()
        client = lab.peer("quiet.py", count)
        told = mover(lab, pid)
        said = client.measured()
        measured = {"isolated_ms": said["gap_ms"], "frozen_ms": said["server"]["longest_ms"]}
        return told | measured | {"lost": float(said["lost"])}


def run(plan: Plan) -> list[Row]:
    """All counts."""
    rows = []
    half = Target("at most half of stock's", lambda medians: medians[MIGRATE] <= medians[NFTABLES] / 2)
    none = Target("0", lambda medians: medians[MIGRATE] == 0)
    for count in COUNTS[: 3 if plan.quick else None]:
        competitors = {who: partial(move, count, mover) for who, mover in movers.two_movers().items()}
        series = plan.alternate(f"{count} connections", competitors)
        what, large = f"{count:,} connections", count >= LARGE
        rows.append(row(NAME, f"{what}: frozen", "ms", series, "frozen_ms", target=half if large else None))
        rows.append(row(NAME, f"{what}: isolated", "ms", series, "isolated_ms"))
        rows.append(row(NAME, f"{what}: lost", "", series, "lost", target=none))
    return rows
