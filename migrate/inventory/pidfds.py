"""Who has a pidfd of a process of the tree: it stays, and is told of an end when the copy here goes.

Source: man pidfd_open(2); man proc(5), /proc/PID/fdinfo, ``Pid:``. Every descriptor of the host is looked at, some
3 us each: not in the freeze.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator

from migrate.inventory import anonymous, holders, proc
from migrate.pb.session_pb2 import Obstacle
from tcpcp.criu import tree
from tcpcp.errors import KernelError

#: What /proc shows of one.
PIDFD = anonymous.PREFIX + "[pidfd]"


def obstacles(inside: Collection[int], besides: Collection[int]) -> Iterator[Obstacle]:
    """Yield a note for each process that has one of the processes *inside*, or of a thread of theirs.

    :param besides: PIDs of whom there is a note anyway.
    """
    ours = {str(tid): pid for pid in inside for tid in _threads(pid)}
    known = set()
    for one in holders.everywhere({*inside, *besides, os.getpid()}):
        if one.target == PIDFD:
            with proc.passing_over():  # ended since, or closed since
                pid = ours.get(proc.fdinfo(one.pid, one.fd).more.get("Pid", ""), 0)
                if pid and (one.pid, pid) not in known:
                    known.add((one.pid, pid))
                    yield Obstacle(code="pidfd-stays", pid=pid, what=holders.named(one.pid))


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(KernelError):  # it has ended
        return tree.threads(pid)
    return []
