"""Processes of a session or group of the tree that are not below it: helpers whose parent has ended, which stay.

Only of a session or group that is led by a process of the tree, or by nobody any more: others are of a shell that
stays, with all else that it has started. Every process of the host is asked, some 20 us each: not in the freeze.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle, Task

#: So many are named; the others are counted.
_NAMED = 5


def obstacles(root_pid: int, tasks: Iterable[Task]) -> Iterator[Obstacle]:
    """Yield a note on all of them, if there are any.

    :param tasks: the tree. Its ancestors and those of the driver are told elsewhere, or know of the migration.
    """
    tasks = list(tasks)
    inside = {one.pid for one in tasks}
    groups = {number for one in tasks for number in (one.sid, one.pgid) if _is_its_own(number, inside)}
    besides = {*inside, *proc.ancestors(root_pid), *proc.ancestors(os.getpid())}
    found = [pid for pid in proc.pids() if pid not in besides] if groups else []
    if names := [name for pid in found if (name := _named_if_in(groups, pid, inside))]:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield Obstacle(code="session-stays", pid=root_pid, what=", ".join(names[:_NAMED]) + more)


def has_ended(root_pid: int) -> bool:
    """Whether the leader of the session of *root_pid* has ended: it has no terminal any more, and nobody uses it.

    The kernel gives the number of a session to nobody else while it has a process. Source: kernel/pid.c free_pid().

    :raises Gone: *root_pid* has ended.
    """
    session = proc.stat(root_pid).session
    return session > 0 and not os.path.exists(f"/proc/{session}")  # noqa: PTH110


def _is_its_own(number: int, inside: set[int]) -> bool:
    return number > 0 and (number in inside or not os.path.exists(f"/proc/{number}"))  # noqa: PTH110


def _named_if_in(groups: set[int], pid: int, inside: set[int]) -> str:
    """The name of *pid* if it lives in one of *groups*, else "".

    Nor of one below *inside*: a child that was made after the tree was listed, or that has ended by now.
    """
    with proc.passing_over():
        stat = proc.stat(pid)
        if not {stat.session, stat.pgrp} & groups or proc.descends(stat.ppid, inside):
            return ""
        if proc.stat(pid).state not in "ZX":
            return f"{stat.comm} (PID {pid})"
    return ""
