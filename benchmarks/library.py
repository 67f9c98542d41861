"""The library alone, without CRIU: what a connection costs, and a download handed over between two hosts."""

from __future__ import annotations

from functools import partial

from arena import PORT, Arena, Metrics, Plan
from movers import MIGRATE
from rows import Medians, Row, Target, at_most, row

COST = "Library: Python cost a connection, batch of 2000 between two hosts' stacks"
PASSING = "Library: an HTTP download passed from origin to destination in its middle"
CONNECTIONS = 2000
TAKER_PORT = 7100
#: What: bytes, bytes a second.
DOWNLOADS = {"at 20 MB/s": (30_000_000, 20_000_000), "as fast as it goes": (2_000_000_000, 0)}
GAP_MS, COST_US = 1.0, 60.0


def cost() -> Metrics:
    """All calls for all connections, once."""
    with Arena() as lab:
        holder = lab.client("cost.py", PORT, host="origin")
        peer = lab.peer("quiet.py", CONNECTIONS, "plain")
        spent = holder.told("go")
        lost = peer.measured()["lost"]
        total = spent["get_us"] + spent["create_us"] + spent["activate_us"]
        return {key: float(value) for key, value in spent.items()} | {"total_us": total, "lost": float(lost)}


def passing(total_bytes: int, rate: int) -> Metrics:
    """One download, passed on when half of it has been written; both programs have passed a connection before."""
    with Arena() as lab:
        address = (f"{lab.address}/24", "eth0")
        lab.client("taker.py", *address, TAKER_PORT, lab.host("peer").ipv4, host="destination")
        where = (lab.host("destination").ipv4, TAKER_PORT)
        giver = lab.client("giver.py", *address, PORT, *where, total_bytes, rate, host="origin")
        peer = lab.peer("download.py")
        said = peer.measured()
        told = giver.told("told")
        during = told.pop("began_s"), told.pop("ended_s")
        figures = {"gap_ms": gap_ms(said["silences_s"], *during), "longest_ms": said["gap_ms"]}
        return figures | {key: float(value) for key, value in told.items()}


def gap_ms(silences_s: list[list[float]], began_s: float, ended_s: float) -> float:
    """The longest silence at the peer that has to do with the pass: others are the machine's. The clock is one."""
    return 1000 * max(end - begin for begin, end in silences_s if begin < ended_s and end > began_s)


def fast(medians: Medians) -> bool:
    """What was aimed at."""
    return medians[MIGRATE] < GAP_MS


def run(plan: Plan) -> list[Row]:
    """Both."""
    series = plan.alternate("library cost", {MIGRATE: cost})
    sum_target = at_most(COST_US, "us")
    rows = [row(COST, name, "us", series, f"{name}_us") for name in ("get", "create", "activate", "release")]
    rows.append(row(COST, "get + create + activate", "us", series, "total_us", target=sum_target))
    rows.append(row(COST, "lost", "", series, "lost", target=at_most(0, "")))
    for what, (size, rate) in DOWNLOADS.items():
        series = plan.alternate(f"download {what}", {MIGRATE: partial(passing, size, rate)})
        target = Target(f"under {GAP_MS:g} ms", fast)
        rows.append(row(PASSING, f"{what}: gap at the peer", "ms", series, "gap_ms", target=target))
        rows.append(
            row(PASSING, f"{what}: longest silence of the whole download", "ms", series, "longest_ms")
        )
        rows.append(row(PASSING, f"{what}: image", "kB", series, "image_bytes", scale=1e-3))
    return rows
