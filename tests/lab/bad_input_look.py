"""What is on a host of the lab, read through /proc, `ip` and `nft`, never with the code under test."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from migrate.lab import Host, enter

DEADLINE_S = 15.0
#: Where a migration might leave something; what may stay: caches, and what mount(8) keeps.
PLACES = ("/run", "/run/migrate", "/dev/shm", "/tmp", "/srv", "/opt", "/")
MAY_STAY = {"/run/migrate", "/run/migrate/probe", "/run/criu.kdat", "/run/mount"}

T = TypeVar("T")


def in_network(host: Host, call: Callable[[], T]) -> T:
    """Call in a thread that is in the network of *host*: sockets and programs belong where they are made."""

    def run() -> T:
        descriptor = os.open(host.netns, os.O_RDONLY)
        try:
            enter.setns(descriptor, enter.CLONE_NEWNET)
        finally:
            os.close(descriptor)
        return call()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def wait_until(true: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Wait until *true* returns something true; return it."""
    deadline = time.monotonic() + deadline_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        threading.Event().wait(0.01)
    return found


def traces(host: Host) -> dict[str, list[str]]:
    """Everything on *host* that a migration could leave behind."""
    command = "ip -o addr | awk '{print $2, $4}'; ip route; ip -6 route; nft list ruleset"
    shown = in_network(host, lambda: subprocess.run(["sh", "-c", command], capture_output=True, text=True))
    found = [f"{place.rstrip('/')}/{name}" for place in PLACES for name in names(host.root / place[1:])]
    return {
        "network": shown.stdout.splitlines(),
        "files": sorted(set(found) - MAY_STAY),
        "processes": _processes(host),
    }


def names(directory: Path) -> list[str]:
    """What is in a directory that may not exist."""
    try:
        return os.listdir(directory)  # noqa: PTH208
    except FileNotFoundError:
        return []


def _processes(host: Host) -> list[str]:
    """Each process of *host*, whether it is stopped, and what traces it."""
    namespace = Path(f"/proc/{host.init.pid}/ns/pid").readlink()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns" / "pid").readlink() == namespace:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                status = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines())
                state = status["State"][0].replace("R", "S").replace("D", "S")
                # Its name only: sshd writes the number of sessions into its command line.
                shown = "sshd" if status["Name"] == "sshd" else words
                found.append(f"{status['NSpid'].split()[-1]} {state} {status['TracerPid']} {shown}")
    return sorted(found)


def changes(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """What is not as it was."""
    gone = [f"gone: {line}" for name in before for line in before[name] if line not in after[name]]
    return gone + [f"left: {line}" for name in after for line in after[name] if line not in before[name]]


def holder(host: Host, port: int) -> int:
    """The process that listens on *port* of *host*, as that host numbers it."""
    command = ["ss", "-Htlnp", f"sport = :{port}"]
    shown = in_network(host, lambda: subprocess.run(command, capture_output=True, text=True)).stdout
    number = shown.partition("pid=")[2].partition(",")[0]
    numbers = Path(f"/proc/{number}/status").read_text().partition("\nNSpid:")[2].splitlines()[0].split()
    return int(numbers[numbers.index(number) + 1])


def listens(host: Host, port: int) -> bool:
    """Whether a process of *host* listens on *port*."""
    command = ["ss", "-Htln", f"sport = :{port}"]
    return bool(in_network(host, lambda: subprocess.run(command, capture_output=True, text=True)).stdout)
