"""Processes by what people call them: the name of a program, or a port on which one listens."""

from __future__ import annotations

import os
from collections.abc import Iterable

from migrate.inventory import holders, proc
from tcpcp.kernel import diag
from tcpcp.record.ici import State

#: The kernel keeps so much of a name (include/linux/sched.h TASK_COMM_LEN).
_COMM_BYTES = 15


def by_program(name: str) -> list[int]:
    """The roots of all trees in which processes are called *name*, or execute a file of that name.

    Neither the kernel's threads, nor what has ended, nor what we run under.
    """
    ours = set(proc.ancestors(os.getpid()))
    found = []
    for pid in proc.pids():
        with proc.passing_over():
            stat = proc.stat(pid)
            if (
                pid not in ours
                and not stat.kernel_thread
                and stat.state not in "ZX"
                and _is(pid, stat.comm, name)
            ):
                found.append(pid)
    return roots(found)


def by_port(port: int) -> list[int]:
    """The roots of all trees that listen at TCP port *port*, at any address of this network namespace.

    The init process is left out where others have the listener too: it keeps those of the units that it starts.

    :raises KernelError: the kernel does not tell.
    """
    listening = (one for one in diag.tcp(states=1 << State.LISTEN) if one.local_port == port)
    targets = {f"socket:[{one.inode}]" for one in listening if one.inode}
    found = {one.pid for one in holders.everywhere() if one.target in targets} if targets else set()
    return roots(found - {1} or found)


def roots(pids: Iterable[int]) -> list[int]:
    """Those of *pids* that are below none of the others."""
    found = set(pids)
    return sorted(pid for pid in found if found.isdisjoint(proc.ancestors(pid)[1:]))


def _is(pid: int, comm: str, name: str) -> bool:
    if comm == name or comm.encode() == os.fsencode(name)[:_COMM_BYTES]:
        return True
    return os.path.basename(proc.link(pid, "exe")) == name  # noqa: PTH119
