"""What is on a host of the lab, read through /proc and ``ss``, never with the code under test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness.hosts import in_network

from migrate.lab import Host


def names(directory: Path) -> list[str]:
    """What is in a directory that may not exist."""
    try:
        return os.listdir(directory)  # noqa: PTH208
    except FileNotFoundError:
        return []


def holder(host: Host, port: int) -> int:
    """The process that listens on *port* of *host*, as that host numbers it."""
    command = ["ss", "-Htlnp", f"sport = :{port}"]
    shown = in_network(host, lambda: subprocess.run(command, capture_output=True, text=True)).stdout
    number = shown.partition("pid=")[2].partition(",")[0]
    numbers = Path(f"/proc/{number}/status").read_text().partition("\nNSpid:")[2].splitlines()[0].split()
    return int(numbers[numbers.index(number) + 1])
