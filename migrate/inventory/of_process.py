"""What a process tree holds: tasks, memory, files and sockets, and what stands in the way of moving it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from migrate.criu import own_namespace
from migrate.errors import KernelError
from migrate.inventory import (
    apart,
    begun_anew,
    cgroups,
    cramped,
    cut_in_two,
    exit_signals,
    incomplete,
    kernel_limits,
    locked,
    looked_at_twice,
    names,
    namespaces,
    needed_pids,
    of_its_session,
    outside,
    own_ipc,
    pidfds,
    places_only,
    proc,
    queued,
    sockets,
    sparse,
    supervision,
    sysv,
    tracing,
    translated,
    waiters,
)
from migrate.inventory.descriptors import Descriptors
from migrate.inventory.files import Files
from migrate.inventory.proc import Gone
from migrate.pb.session_pb2 import Obstacle, ProcessInventory, Task
from migrate.processes import freezer
from migrate.processes.own_numbers import Numbers
from tcpcp.criu import tree
from tcpcp.errors import KernelError as TcpcpKernelError
from tcpcp.errors import TcpcpError

#: CRIU dumps what belongs to a process through its first thread.
_LEADER_HINT = "Start the program again so that its main thread waits for the others (pthread_join)."

_KILOBYTE = 1024
#: include/uapi/linux/sched.h
_SCHED_DEADLINE = 6
#: Of /proc/PID/status: what CRIU writes into images. Pages of files that are unchanged stay in the files.
_IMAGE_PAGES = ("RssAnon", "RssShmem", "VmSwap")


def process(root_pid: int) -> ProcessInventory:
    """Look at *root_pid* and all processes below it. They run on, and nothing is changed.

    A process below the root that ends meanwhile is left out.

    :raises KernelError: there is no such process, or it ended; or this user may not look into it.
    """
    try:
        return _settled(root_pid)
    except Gone:
        raise _ended(root_pid) from None
    except TcpcpKernelError as error:
        if error.errno == errno.ESRCH:
            raise _ended(root_pid) from None
        raise KernelError(f"cannot look into process {root_pid}: {error}") from error
    except (TcpcpError, PermissionError) as error:
        raise KernelError(
            f"cannot look into process {root_pid}: {error}", hint="Run migrate as root."
        ) from error


def _settled(root_pid: int) -> ProcessInventory:
    """Look once, and once more where that may have put together what does not belong together."""
    first = _inspect(root_pid)
    if not looked_at_twice.is_questioned(first.obstacles):
        return first
    time.sleep(outside.MOMENT_S)
    found = _inspect(root_pid)
    obstacles = looked_at_twice.settled(first.obstacles, found.obstacles)
    del found.obstacles[:]
    found.obstacles.extend(obstacles)
    return found


def _inspect(root_pid: int) -> ProcessInventory:
    if _leader_ended(proc.stat(root_pid).state, tree.threads(root_pid)):
        raise KernelError(f"the main thread of process {root_pid} has ended, others live", hint=_LEADER_HINT)
    found = ProcessInventory(root_pid=root_pid, driver_pids=proc.ancestors(os.getpid()))
    pids = tree.tasks_now(root_pid)
    numbers = own_namespace.numbers(root_pid, pids)
    files, tables = Files(), Descriptors(numbers)
    own, root = namespaces.expected(root_pid), proc.namespaces(root_pid)
    for pid in pids:
        try:
            task, memory_bytes = _task(pid)
            found.tasks.append(task)
            task = found.tasks[-1]
            if _leader_ended("Z" if task.zombie else "", task.tids):
                found.obstacles.append(Obstacle(code="leader-ended", pid=pid))
            if task.zombie or task.kernel_thread:
                continue
            found.memory_bytes += memory_bytes
            expected = own if pid == root_pid else root
            found.obstacles.extend(namespaces.foreign(pid, proc.namespaces(pid), expected))
            _tracer(pid, found)
            _still(pid, found)
            _limits(task, found)
            _scheduling(task, found)
            found.obstacles.extend(locked.obstacles(pid, proc.status(pid)))
            files.add_process(pid)
            kernel_limits.of_task(task, proc.text(pid, "maps"), partial(proc.text, pid, "smaps"))
            tables.add_process(pid, files)
            task.highest_descriptor = max(tables.tables[pid], default=0)
        except Gone:
            if pid == root_pid:
                raise
    _finish(found, files, tables, numbers)
    inside = {task.pid for task in found.tasks}
    found.queued_signals = queued.taken(inside)
    found.supervisors.extend(supervision.supervisors(root_pid, inside))
    found.obstacles.extend(pidfds.obstacles(inside, {one.pid for one in found.supervisors}))
    found.obstacles.extend(of_its_session.obstacles(root_pid, found.tasks))
    found.obstacles.extend(namespaces.obstacles(root_pid, inside))
    return found


def _finish(found: ProcessInventory, files: Files, tables: Descriptors, numbers: Numbers) -> None:
    """Add what only the whole tree shows: what leads out of it."""
    held = sockets.collect(tree.held_in(tables.tables), tables.tables)
    for one, other in translated.find(held.tcp):
        one.problem = one.problem or translated.words(one, other)
    found.sockets.extend(held.tcp)
    found.other_addresses.extend(held.other_addresses)
    found.obstacles.extend(incomplete.obstacles([task.pid for task in found.tasks]))
    found.obstacles.extend(tables.inside_terminals(files.obstacles))
    found.names.extend([*held.names, *tables.terminals()])
    inside = {task.pid for task in found.tasks}
    found.obstacles.extend(tables.obstacles(inside))
    found.obstacles.extend(tables.hints())
    found.obstacles.extend(cut_in_two.look(tables, files, inside))
    found.obstacles.extend(places_only.obstacles(tables.tables, sockets=True))
    found.obstacles.extend(waiters.obstacles(files.locks, inside))
    found.obstacles.extend(exit_signals.obstacles(inside))
    found.obstacles.extend(sysv.obstacles([task.pid for task in found.tasks]))
    found.memory_bytes += own_ipc.idle_bytes(inside)
    found.obstacles.extend(tracing.obstacles(inside))
    found.obstacles.extend(apart.obstacles(found.tasks))
    found.obstacles.extend(cramped.obstacles(inside))
    found.obstacles.extend(begun_anew.obstacles(inside))
    found.obstacles.extend(sparse.obstacles(inside))
    found.files.extend([*files.found, *files.deleted])
    found.files.extend(names.directories(held.names))
    found.cgroups.extend(cgroups.of_tree(task.pid for task in found.tasks))
    found.obstacles.extend(held.obstacles)
    found.reconnections.extend(held.reconnections)
    found.session_ended = of_its_session.has_ended(found.root_pid)
    found.nowhere.extend(sorted(held.nowhere - {""}))
    found.needed_pids.extend(sorted({*needed_pids.of(found.tasks, numbers), *tables.ended()}))


def _task(pid: int) -> tuple[Task, int]:
    """Return the task, and how much of its memory goes into images, in bytes."""
    stat, status = proc.stat(pid), proc.status(pid)
    try:
        tids = tree.threads(pid)
    except TcpcpKernelError:
        raise Gone(f"process {pid}") from None
    task = Task(
        pid=pid,
        ppid=stat.ppid,
        sid=stat.session,
        pgid=stat.pgrp,
        comm=stat.comm,
        tids=tids,
        kernel_thread=stat.kernel_thread,
        uid=int(status.get("Uid", "0").split()[0]),
        zombie=stat.state in "ZX",
        memory_policy=proc.memory_policy(pid),
    )
    return task, sum(_bytes(status, name) for name in _IMAGE_PAGES)


def _leader_ended(state: str, tids: Sequence[int]) -> bool:
    """Whether the first thread has ended, as by pthread_exit(3), and others live: /proc shows nothing of them."""
    return state in ("Z", "X") and len(tids) > 1


def _bytes(status: dict[str, str], name: str) -> int:
    """Return a size of /proc/PID/status; zombies and kernel threads have none."""
    return int(status.get(name, "0 kB").split()[0]) * _KILOBYTE


def _tracer(pid: int, found: ProcessInventory) -> None:
    tracer = proc.status(pid).get("TracerPid", "0")
    if tracer != "0":
        code = "held" if _holds(int(tracer)) else "traced"
        found.obstacles.append(Obstacle(code=code, pid=pid, what=tracer))


def _holds(tracer: int) -> bool:
    """Whether it is CRIU or a keeper: of another migration, and to end it may end the process as well."""
    with contextlib.suppress(Gone):
        words = proc.text(tracer, "cmdline").split("\0")
        return Path(words[0]).name == "criu" or "migrate.processes.keeping" in words
    return False


def _still(pid: int, found: ProcessInventory) -> None:
    """CRIU waits for ever for one that a frozen cgroup holds, and may kill it when it ends; who is stopped is so
    anew for its parent, where that moves too."""
    if pid != found.root_pid and proc.status(pid).get("State", "").startswith("T"):
        found.obstacles.append(Obstacle(code="stopped-child", pid=pid))
    if cgroup := freezer.frozen_by(pid):
        found.obstacles.append(Obstacle(code="frozen", pid=pid, what=str(cgroup)))


def _limits(task: Task, found: ProcessInventory) -> None:
    """CRIU reads the resource limits of every task: of another user's only with CAP_SYS_RESOURCE."""
    try:
        resource.prlimit(task.pid, resource.RLIMIT_CPU)
    except PermissionError:
        found.obstacles.append(Obstacle(code="limits", pid=task.pid, what=str(task.uid)))
    except ProcessLookupError:
        raise Gone(f"process {task.pid}") from None


def _scheduling(task: Task, found: ProcessInventory) -> None:
    """CRIU sets policies by sched_setscheduler(2), which knows no deadlines."""
    for tid in task.tids:
        try:
            policy = os.sched_getscheduler(tid) & ~os.SCHED_RESET_ON_FORK
        except ProcessLookupError:
            continue
        if policy == _SCHED_DEADLINE:
            found.obstacles.append(Obstacle(code="scheduling", pid=task.pid, what="SCHED_DEADLINE"))
            return


def _ended(pid: int) -> KernelError:
    return KernelError(f"process {pid} has ended", hint="Look for its new PID with pgrep, and try again.")
