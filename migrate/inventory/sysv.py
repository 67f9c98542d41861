"""Semaphores and message queues of System V that a tree uses: no descriptor shows them, CRIU leaves them behind.

The kernel keeps who was the last to use each; before anybody did, nothing tells whose they are. Shared memory of
System V is among the mappings.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Iterator
from pathlib import Path

from migrate.pb.session_pb2 import Obstacle

_TABLES = Path("/proc/sysvipc")
_GETPID = 11
_libc = ctypes.CDLL(None, use_errno=True)


def obstacles(inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield each semaphore set and message queue that a process of *inside* was the last to use."""
    for row in _rows("sem"):
        if pid := next((pid for pid in _last_users(row) if pid in inside), 0):
            yield Obstacle(code="sysv-ipc", pid=pid, what=f"semaphores, ipcs -s -i {row['semid']}")
    for row in _rows("msg"):
        if pid := next((row[name] for name in ("lspid", "lrpid") if row[name] in inside), 0):
            yield Obstacle(code="sysv-ipc", pid=pid, what=f"message queue, ipcs -q -i {row['msqid']}")


def _rows(name: str) -> list[dict[str, int]]:
    """The rows of a table of ours; none where the kernel has no System V IPC. Source: man sysvipc(7)."""
    try:
        return parse((_TABLES / name).read_text())
    except FileNotFoundError:
        return []


def parse(content: str) -> list[dict[str, int]]:
    """The rows by the names in the first line.

    :raises ValueError: it is another text.
    """
    names, *rows = content.split("\n")
    return [dict(zip(names.split(), map(int, row.split()), strict=True)) for row in rows if row]


def _last_users(row: dict[str, int]) -> Iterator[int]:
    """Who was the last to use each semaphore of a set. Source: man semctl(2), GETPID; -1: the set is gone."""
    return (_libc.semctl(row["semid"], number, _GETPID) for number in range(row["nsems"]))
