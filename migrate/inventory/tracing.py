"""Whom the tree traces (ptrace(2)): a process that stays would be let go, or killed, with the tracer's copy here.

Source: man proc(5), TracerPid, which is the number of a thread and shows for each thread; man ptrace(2),
PTRACE_O_EXITKILL. Every thread of the host is asked, some 30 us each: not in the freeze.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from migrate.inventory import holders, proc
from migrate.pb.session_pb2 import Obstacle
from tcpcp.criu import tree
from tcpcp.errors import KernelError

_ALONE = b"\nThreads:\t1\n"


def obstacles(inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield one for each process that a thread of the processes *inside* traces, and that is none of them."""
    tracers = {str(tid).encode(): pid for pid in inside for tid in _threads(pid)}
    for pid in proc.pids():
        if pid not in inside:
            with proc.passing_over():
                tracer = next((tracers[one] for one in _tracers(pid) if one in tracers), None)
                if tracer is not None:
                    yield Obstacle(code="tracing", pid=tracer, what=holders.named(pid))


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(KernelError):  # it has ended
        return tree.threads(pid)
    return []


def _tracers(pid: int) -> Iterator[bytes]:
    """Who traces each thread of *pid*, b"0" for nobody. Most processes have one thread: then nothing is listed."""
    status = Path(f"/proc/{pid}/status").read_bytes()
    yield _tracer(status)
    if _ALONE not in status:
        for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with proc.passing_over():  # a thread ends, and the others are asked all the same
                yield _tracer(Path(f"/proc/{pid}/task/{name}/status").read_bytes())


def _tracer(status: bytes) -> bytes:
    return status.partition(b"\nTracerPid:\t")[2].partition(b"\n")[0]
