"""The machine that a result belongs to."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path


def said(*command: str) -> str:
    """The first line that a program prints, "" without the program."""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0].strip() if lines else ""


def field(path: str, key: str) -> str:
    """The value of the first line ``KEY : value`` of a file in /proc."""
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def describe() -> dict[str, object]:
    """Everything that a reader needs to compare. The load is that of before the first run."""
    here = Path(__file__).resolve().parent
    criu = Path(sys.executable).with_name("criu")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": field("/proc/meminfo", "MemTotal"),
        "virtual": said("systemd-detect-virt"),
        "kernel": platform.release(),
        "distribution": platform.freedesktop_os_release()["PRETTY_NAME"],
        "python": platform.python_version(),
        "criu": said(str(criu), "--version"),
        "ssh": said("ssh", "-V"),
        "nft": said("nft", "--version"),
        "iptables": said("iptables", "--version") or "not installed",
        "commit": said("git", "-C", str(here), "describe", "--always", "--dirty"),
        "load": list(os.getloadavg()),
    }


def sentence(facts: dict[str, object]) -> str:
    """One line for above the table."""
    return (
        f"{facts['cores']} cores of {facts['cpu']}, {facts['memory']}, kernel {facts['kernel']}, "
        f"{facts['distribution']}, CRIU {str(facts['criu']).removeprefix('Version: ')}, "
        f"Python {facts['python']}, {facts['ssh']}, commit {facts['commit']}, {facts['date']}"
    )
