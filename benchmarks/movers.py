"""The competitors: each moves a process of a lab from origin to destination and says what it knows of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from harness import HERE, Arena, Metrics, RunFailed

MIGRATE, NFTABLES, IPTABLES = "migrate", "stock CRIU, nftables lock", "stock CRIU, iptables lock"
DEADLINE_S = 90.0

Mover = Callable[[Arena, int], Metrics]


def migrate(arena: Arena, pid: int) -> Metrics:
    """``migrate PID destination``. :raises RunFailed: it did not move."""
    command = ["migrate", "--json", str(pid), "destination"]
    done = _run(arena, command)
    lines = done.stdout.splitlines()
    report = json.loads(lines[-1]) if lines else {}
    if done.returncode or report.get("outcome") != "MOVED":
        told = {key: report.get(key) for key in ("outcome", "error", "reasons", "notes", "phases_ms")}
        raise RunFailed(f"migrate: status {done.returncode}\n{json.dumps(told, indent=1)}\n{done.stderr}")
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
        done = _run(arena, [*script, str(pid), "destination", f"{arena.address}/24", "eth0", lock])
        if done.returncode:
            raise RunFailed(f"stock CRIU: {done.stdout}{done.stderr}")
        said: dict[str, Any] = json.loads(done.stdout)
        return {"image_bytes": float(said["image_bytes"])} | _phases({"stock": said["phases_ms"]})

    return move


def _run(arena: Arena, command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return arena.host("origin").exec(command, check=False, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        output = b"".join(part for part in (error.stdout, error.stderr) if part)
        raise RunFailed(f"{command[0]} did not end within {DEADLINE_S:g} s\n{output!r}") from None


def all_movers() -> dict[str, Mover]:
    """Those that can run here."""
    found: dict[str, Mover] = {MIGRATE: migrate, NFTABLES: stock("nftables")}
    if shutil.which("iptables-restore"):
        found[IPTABLES] = stock("iptables")
    return found


def two_movers() -> dict[str, Mover]:
    """``migrate`` and the better of the stock ways."""
    return {MIGRATE: migrate, NFTABLES: stock("nftables")}
