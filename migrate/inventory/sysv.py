"""What a tree has of System V: no descriptor shows it, CRIU leaves what is the host's behind.

The kernel keeps who was the last to use semaphores and message queues; before anybody did, nothing tells whose they
are but who made them when. Of shared memory it keeps who made it; what is attached is among the mappings.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from migrate.inventory import own_ipc, proc, sysv_tables
from migrate.pb.session_pb2 import Obstacle
from migrate.processes import identity

_GETPID = 11
_libc = ctypes.CDLL(None, use_errno=True)


def obstacles(inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield what a process of *inside* was the last to use, or has made, or may have made.

    A tree that has an IPC namespace of its own takes with it what is in there, but what CRIU cannot make again.
    """
    if own_ipc.has(inside):
        yield from own_ipc.obstacles(inside)
        return
    used = [
        (f"semaphores, ipcs -s -i {row['semid']}", row, [*_last_users(row)])
        for row in sysv_tables.rows("sem")
    ]
    queues = ((row, [row["lspid"], row["lrpid"]]) for row in sysv_tables.rows("msg"))
    used += [(f"message queue, ipcs -q -i {row['msqid']}", row, pids) for row, pids in queues]
    for what, row, pids in used:
        if pid := next((pid for pid in pids if pid in inside), 0):
            yield Obstacle(code="sysv-ipc", pid=pid, what=what)
        elif not any(_lives(pid) for pid in pids) and (pid := _perhaps_made_by(row, inside)):
            yield Obstacle(code="sysv-unused", pid=pid, what=what)
    for row in sysv_tables.rows("shm"):
        if not row["nattch"] and (pid := row["cpid"]) in inside and _began_before(pid, row["ctime"]):
            yield Obstacle(code="sysv-ipc", pid=pid, what=f"shared memory, ipcs -m -i {row['shmid']}")


def _last_users(row: dict[str, int]) -> Iterator[int]:
    """Who was the last to use each semaphore of a set. Source: man semctl(2), GETPID; -1: the set is gone."""
    return (_libc.semctl(row["semid"], number, _GETPID) for number in range(row["nsems"]))


def _lives(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()


def _perhaps_made_by(row: dict[str, int], inside: Collection[int]) -> int:
    """A process of *inside* one of whose users made it when that process was there; 0: none."""
    for pid in inside:
        with contextlib.suppress(proc.Gone):
            users = proc.status(pid).get("Uid", "").split()
            if str(row["cuid"]) in users and _began_before(pid, row["ctime"]):
                return pid
    return 0


def _began_before(pid: int, when_s: int) -> bool:
    """Whether *pid* was there at *when_s*, in whole seconds of the time of day; else another one had its number."""
    try:
        _, ticks = identity.identity(pid)
    except ProcessLookupError:
        return False
    since_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return int(time.time() - since_s) <= when_s
