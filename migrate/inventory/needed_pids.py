"""The numbers that a tree needs on another host, as it sees them itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from migrate.inventory import proc
from migrate.pb.session_pb2 import Task
from migrate.processes.own_numbers import Numbers


def of(tasks: Iterable[Task], numbers: Numbers) -> set[int]:
    """Return those of tasks and threads, and of groups and sessions left behind.

    A session or group whose leader lives outside the tree is not rebuilt: CRIU puts the tree into its own.

    :param numbers: of *tasks*.
    """
    tasks = list(tasks)
    found = set(numbers.those_inside(number for task in tasks for number in (task.pid, *task.tids)))
    for task in tasks:
        for number, kind in ((task.sid, "NSsid"), (task.pgid, "NSpgid")):
            if not os.path.exists(f"/proc/{number}"):  # noqa: PTH110
                found.add(_inside(task.pid, kind) if numbers.own else number)
    return found - {0}


def _inside(pid: int, kind: str) -> int:
    """The group or session of *pid* in its own namespace: its leader, which could tell it, has ended."""
    with contextlib.suppress(proc.Gone):
        return int((proc.status(pid).get(kind, "").split() or ["0"])[-1])
    return 0
