"""The competitors: each moves a process of a lab from origin to destination and says what it knows of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from arena import HERE, Arena, Metrics, RunFailed
from harness.migrate import run_migrate

MIGRATE, NFTABLES, IPTABLES = "migrate", "stock CRIU, nftables lock", "stock CRIU, iptables lock"
DEADLINE_S = 90.0

Mover = Callable[[Arena, int], Metrics]


def migrate(arena: Arena, pid: int) -> Metrics:
    """``migrate PID destination``. :raises RunFailed: it did not move."""
    try:
        done = run_migrate(arena.host("origin"), pid, "destination", timeout_s=DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        raise _hung("migrate", error) from None
    report = done.report
    if done.status or report["outcome"] != "MOVED":
        told = {key: report.get(key) for key in ("outcome", "error", "reasons", "notes", "phases_ms")}
        raise RunFailed(f"migrate: status {done.status}\n{json.dumps(told, indent=1)}\n{done.stderr}")
    metrics = {
        "told_frozen_ms": report["frozen_ms"],
        "told_isolated_ms": report["isolated_ms"],
        "told_total_ms": report["total_ms"],
        "image_bytes": float(report["image_bytes"]),
    }
    return metrics | _phases(report["phases_ms"])


def _phases(phases_ms: Mapping[str, Mapping[str, float]]) -> Metrics:
    return {f"{role} {name}": ms for role, phases in phases_ms.items() for name, ms in phases.items()}


def stock(lock: str) -> Mover:
    """The script of stock CRIU with *lock*."""

    def move(arena: Arena, pid: int) -> Metrics:
        script = [sys.executable, "-I", "-S", str(HERE / "stock.py")]
        command = [*script, str(pid), "destination", f"{arena.address}/24", "eth0", lock]
        try:
            done = arena.host("origin").exec(command, check=False, timeout=DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            raise _hung("stock CRIU", error) from None
        if done.returncode:
            raise RunFailed(f"stock CRIU: {done.stdout}{done.stderr}")
        said: dict[str, Any] = json.loads(done.stdout)
        return {"image_bytes": float(said["image_bytes"])} | _phases({"stock": said["phases_ms"]})

    return move


def _hung(program: str, error: subprocess.TimeoutExpired) -> RunFailed:
    output = b"".join(part for part in (error.stdout, error.stderr) if part)
    return RunFailed(f"{program} did not end within {DEADLINE_S:g} s\n{output!r}")


def all_movers() -> dict[str, Mover]:
    """Those that can run here."""
    found: dict[str, Mover] = {MIGRATE: migrate, NFTABLES: stock("nftables")}
    if shutil.which("iptables-restore"):
        found[IPTABLES] = stock("iptables")
    return found


def two_movers() -> dict[str, Mover]:
    """``migrate`` and the better of the stock ways."""
    return {MIGRATE: migrate, NFTABLES: stock("nftables")}
