"""Who runs on a host of the lab, seen from the machine: quick enough to hit somebody within a gap. /proc only."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from migrate.lab import Host


class Process(NamedTuple):
    """One process of a host.

    :ivar machine_pid: its number on the machine; ``pid`` that on the host.
    :ivar state: the letter of ps.
    """

    machine_pid: int
    pid: int
    parent: int
    state: str
    words: str
    name: str


def processes(host: Host) -> Iterator[Process]:
    """Everybody on *host*, those in PID namespaces of their own too: they share its network."""
    network = host.netns.readlink()
    depth = len(_numbers(host.init.pid)) - 1
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                if (entry / "ns" / "net").readlink() == network:
                    yield _process(int(entry.name), depth)


def _numbers(machine_pid: int) -> list[int]:
    text = Path(f"/proc/{machine_pid}/status").read_text()
    return [int(word) for word in text.partition("\nNSpid:")[2].partition("\n")[0].split()]


def _process(machine_pid: int, depth: int) -> Process:
    words = Path(f"/proc/{machine_pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    comm, _, rest = Path(f"/proc/{machine_pid}/stat").read_text().partition("(")[2].rpartition(")")
    state, parent = rest.split()[:2]
    words = words.strip() or f"[{comm}]"
    return Process(machine_pid, _numbers(machine_pid)[depth], int(parent), state, words, comm)


#: Words of the command line by which each is known, and a word that must not be in it.
WHO = {
    "driver": ("bin/migrate --json", "lab keeper"),
    "agent": ("bin/migrate-agent", "bash -c"),
    "guardian": ("-m migrate.recovery.guardian", "lab keeper"),
    "keeper": ("-m migrate.processes.keeping", "lab keeper"),
    "sshd": ("root@notty", "listener"),
    "server": ("server.py serve", " call "),
}


def find(host: Host, who: str) -> list[Process]:
    """Those on *host* that are *who*, the oldest first."""
    living = [one for one in processes(host) if "enter.py" not in one.words and one.state not in "ZX"]
    return sorted((one for one in living if _is(one, who)), key=lambda one: one.machine_pid)


def _is(process: Process, who: str) -> bool:
    if who == "criu":  # its command line says what it is at
        return process.name == "criu"
    word, unless = WHO[who]
    return word in process.words and unless not in process.words


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal; one that is gone does not mind."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.machine_pid, number)


def stopped_for_good(process: Process) -> bool:
    """Whether it cannot run: stopped, traced, or in a frozen cgroup."""
    if process.state in "Tt":
        return True
    with contextlib.suppress(OSError):
        group = Path(f"/proc/{process.machine_pid}/cgroup").read_text().rpartition("0::")[2].strip()
        for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            events = Path(f"{root}{group}/cgroup.events")
            if events.exists():
                return "frozen 1" in events.read_text()
    return False
