"""Tasks that do not share what CRIU takes them to share, or share what it builds for each: asked by kcmp(2).

CRIU knows threads only that have files, directories and namespaces in common with the first one: what another has
of its own (unshare(2) in a thread) would be gone after the move. Of processes it takes each to have its own memory
and directories, and refuses in the freeze where they are shared (criu/kerndat.c, criu/namespaces.c, kcmp-ids.c).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import itertools
import os
import time
from collections.abc import Iterable, Iterator

from migrate.inventory import proc
from migrate.inventory.proc import Gone
from migrate.pb.session_pb2 import Obstacle, Task

#: Number of kcmp(2), for which there is no function in the C library. Source: man syscalls(2).
KCMP = 312 if os.uname().machine == "x86_64" else 272
#: enum kcmp_type of include/uapi/linux/kcmp.h.
_VM, _FILES, _FS = 1, 2, 3
_OF_THREADS = ((_FILES, "table of open files"), (_FS, "working directory and umask"))
_OF_PROCESSES = ((_VM, "its memory"), (_FS, "its working directory and umask"))
#: Children of vfork(2) and posix_spawn(3) have their parent's memory until they execute a program.
_MOMENT_S = 0.2

_libc = ctypes.CDLL(None, use_errno=True)


def obstacles(tasks: Iterable[Task]) -> Iterator[Obstacle]:
    """Yield what of *tasks*, which run on, is not as CRIU builds it. Nothing of one that ends meanwhile."""
    alive = [one for one in tasks if not one.zombie and not one.kernel_thread]
    for task in alive:
        yield from of_threads(task)
    pids = [one.pid for one in alive]
    shared = set(_shared(pids))
    if shared:
        time.sleep(_MOMENT_S)
        shared &= set(_shared(pids))
    for pid, other, what in sorted(shared):
        yield Obstacle(code="shared", pid=pid, what=f"{what} with process {other}")


def of_threads(task: Task) -> Iterator[Obstacle]:
    """Yield what a thread of *task* has of its own; the first of it is enough."""
    if what := next(_own_things(task), ""):
        yield Obstacle(code="thread-apart", pid=task.pid, what=what)


def compare(one: int, other: int, kind: int, fds: tuple[int, int] = (0, 0)) -> int:
    """0 if the tasks have the same, 1 or 2 for an order between those that have not.

    :param fds: their descriptors, where *kind* is of those.
    :raises Gone: a task has ended, or has closed its descriptor.
    :raises OSError: the kernel has no kcmp(2), or does not let us.
    """
    result = int(_libc.syscall(KCMP, one, other, kind, *map(ctypes.c_ulong, fds)))
    if result < 0:
        if ctypes.get_errno() == errno.EBADF:
            raise Gone(f"a descriptor of {one} or {other}")
        with proc.looking():
            raise OSError(ctypes.get_errno(), f"kcmp of {one} and {other}")
    return result


def _own_things(task: Task) -> Iterator[str]:
    """What a thread of the process has of its own."""
    others = [tid for tid in task.tids if tid != task.pid]
    try:
        its = proc.namespaces(task.pid) if others else {}
    except Gone:
        return
    for tid in others:
        try:
            yield from (
                f"{what} (thread {tid})" for kind, what in _OF_THREADS if compare(task.pid, tid, kind)
            )
            found = proc.namespaces(tid)
        except Gone:
            continue
        yield from (
            f"{kind} namespace (thread {tid})" for kind in sorted(found) if found[kind] != its.get(kind)
        )


def _shared(pids: list[int]) -> Iterator[tuple[int, int, str]]:
    """Pairs of processes with the same of something, and what."""
    for kind, what in _OF_PROCESSES:
        try:
            ordered = sorted(pids, key=functools.cmp_to_key(functools.partial(_order, kind)))
            for one, other in itertools.pairwise(ordered):
                if not compare(one, other, kind):
                    yield max(one, other), min(one, other), what
        except Gone:
            continue


def _order(kind: int, one: int, other: int) -> int:
    return (0, -1, 1, 0)[compare(one, other, kind)]
