"""What CRIU needs in a task that it dumps, under the task's own limits: a few descriptors and some addresses.

These are locked in memory where the task has asked for that, for all that it maps (mlockall(2)).

CRIU has the task itself open and map things, and one that has come to its limits cannot. A soft limit can be raised
for that time, up to the hard one, while the task stands still.

Source: compel/src/lib/infect.c, criu/pie/parasite.c; man getrlimit(2). The kernel counts numbers of descriptors,
not descriptors (fs/file.c alloc_fd()), and compares all that is mapped with RLIMIT_AS (mm/mmap.c may_expand_vm()).
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from migrate.pb.session_pb2 import Surroundings
from migrate.processes import identity
from migrate.processes.identity import Identity

#: Its socket, its log, /proc/self and a file in that; and one more.
DESCRIPTORS = 5
#: Its code, stack and arguments: measured, less than 256 KiB; and what a task with very many mappings needs more.
ADDRESS_BYTES = 2 << 20
_KILOBYTE = 1024
#: include/uapi/linux/capability.h; mm/mmap.c mlock_future_ok()
_CAP_IPC_LOCK = 14


class Narrow(NamedTuple):
    """A soft limit of the process *pid* that leaves CRIU too little.

    :ivar kind: as for getrlimit(2). :ivar needed: what it has to be at the least.
    """

    pid: int
    kind: int
    soft: int
    hard: int
    needed: int

    @property
    def can_be_raised(self) -> bool:
        """Whether the hard limit allows it."""
        return self.hard == resource.RLIM_INFINITY or self.hard >= self.needed


def narrow(pid: int) -> Iterator[Narrow]:
    """Yield what is too narrow; nothing of a process that has ended, or whose limits this root may not see."""
    with contextlib.suppress(OSError):
        for kind, needed in _NEEDED.items():
            soft, hard = resource.prlimit(pid, kind)
            if soft != resource.RLIM_INFINITY and (least := needed(pid, soft)) > soft:
                yield Narrow(pid, kind, soft, hard, least)


def raised(one: Narrow) -> None:
    """Raise it as far as it is needed. :raises OSError: it cannot be."""
    resource.prlimit(one.pid, one.kind, (one.needed, one.hard))


def put_back(task: Identity, kind: int, *, now: int, before: int) -> None:
    """Make the soft limit *kind* of *task* again what it was, unless it has ended or somebody has set another one.

    :param now: what we made of it.
    """
    with contextlib.suppress(ProcessLookupError):
        soft, hard = resource.prlimit(task[0], kind)
        if soft == now and identity.alive(task):
            resource.prlimit(task[0], kind, (before, hard))


def as_before(found: Iterable[Surroundings], lent: Iterable[Narrow]) -> None:
    """Write into what was read of the frozen tasks the limits that they had before."""
    soft = {(one.pid, one.kind): one.soft for one in lent}
    for process in found:
        for limit in process.limits:
            limit.soft = soft.get((process.pid, limit.resource), limit.soft)


def _descriptors(pid: int, soft: int) -> int:
    # How many are open, since Linux 6.2, before that 0: there may be very many to list.
    if 0 < os.stat(f"/proc/{pid}/fd").st_size <= soft - DESCRIPTORS:  # noqa: PTH116
        return 0
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH208
    free = 0
    for number in range(soft + len(used) + DESCRIPTORS):
        free += number not in used
        if free == DESCRIPTORS:
            return number + 1
    return soft


def _addresses(pid: int, soft: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_bytes().split(b"\n"):
        if line.startswith(b"VmSize:"):
            return int(line.split()[1]) * _KILOBYTE + ADDRESS_BYTES
    return 0  # it has ended


def _locked(pid: int, soft: int) -> int:
    """Whether it locks what will be mapped (MCL_FUTURE) shows nowhere: so every process is lent what that takes."""
    status = Path(f"/proc/{pid}/status").read_bytes()
    found = dict(
        line.split(b":", 1) for line in status.split(b"\n") if line.startswith((b"VmLck:", b"CapEff:"))
    )
    if b"VmLck" not in found or int(found[b"CapEff"], 16) >> _CAP_IPC_LOCK & 1:
        return 0  # it has ended, or may lock all
    return int(found[b"VmLck"].split()[0]) * _KILOBYTE + ADDRESS_BYTES


#: Limit -> what it has to be for a process, of which the soft one is given.
_NEEDED: Mapping[int, Callable[[int, int], int]] = {
    resource.RLIMIT_NOFILE: _descriptors,
    resource.RLIMIT_AS: _addresses,
    resource.RLIMIT_MEMLOCK: _locked,
}
