"""Bulk data after the move: the rate of the first second, the segment size, the congestion algorithm."""

from __future__ import annotations

import re
import time
from functools import partial

import movers
from arena import PORT, Arena, Metrics, Plan, RunFailed, Series
from movers import MIGRATE, Mover
from rows import Row, Target, row

NAME = "Throughput after the move, 1 connection"
CASES = {"sends during the move": "during", "quiet during the move": "quiet"}
#: How long the server sends before it is asked for the details of its connection.
FIRST_S = 1.1
SHARE = 0.95


def details(lab: Arena, host: str) -> tuple[float, str]:
    """Segment size in bytes and algorithm of the server's end, as ``ss`` tells them."""
    said = lab.host(host).exec(["ss", "-tinH", f"sport = {PORT}"]).stdout
    size, algorithm = re.search(r" mss:(\d+)", said), re.search(r"^\s+(\w+) ", said, re.MULTILINE)
    if not (size and algorithm):
        raise RunFailed(f"no connection on {host}: {said!r}")
    return float(size[1]), algorithm[1]


def move(when: str, mover: Mover) -> Metrics:
    """One move; the peer is on the same segment as the servers."""
    with Arena() as lab:
        pid = lab.serve()
        client = lab.peer("bulk.py", lab.host("neighbour").ipv4, when)
        size_before, algorithm_before = details(lab, "origin")
        told = mover(lab, pid)
        time.sleep(FIRST_S if when == "during" else 0)
        size, algorithm = details(lab, "destination")
        said = client.measured()
        return told | {
            "share": 100 * said["after_mb_per_s"] / said["before_mb_per_s"],
            "before_mb_per_s": said["before_mb_per_s"],
            "after_mb_per_s": said["after_mb_per_s"],
            "segment_before_bytes": size_before,
            "segment_bytes": size,
            "algorithm_kept": float(algorithm == algorithm_before),
        }


#: Metric: what it is called, its unit.
FIGURES = {
    "share": ("first second after", "% of before"),
    "before_mb_per_s": ("before", "MB/s"),
    "after_mb_per_s": ("first second after", "MB/s"),
    "segment_before_bytes": ("segment before", "bytes"),
    "segment_bytes": ("segment after", "bytes"),
    "algorithm_kept": ("algorithm kept", ""),
}


def targets(series: dict[str, Series]) -> dict[str, Target]:
    """What was aimed at, by metric."""
    before = [size for one in series.values() for size in one.of("segment_before_bytes")]
    return {
        "share": Target("at least 95 % of before", lambda medians: medians[MIGRATE] >= 100 * SHARE),
        "segment_bytes": Target("as before", lambda medians: {medians[MIGRATE]} == set(before)),
        "algorithm_kept": Target("1", lambda medians: medians[MIGRATE] == 1),
    }


def run(plan: Plan) -> list[Row]:
    """Both cases."""
    rows = []
    for what, when in CASES.items():
        competitors = {who: partial(move, when, mover) for who, mover in movers.two_movers().items()}
        series = plan.alternate(f"bulk, {what}", competitors)
        for metric, (called, unit) in FIGURES.items():
            name, target = f"{what}: {called}", targets(series).get(metric)
            rows.append(row(NAME, name, unit, series, metric, target=target, more_is_better=True))
    return rows
