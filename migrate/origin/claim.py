"""One migration at a time of a process, and of all below it: who comes second is refused, and told by whom.

A tree is claimed as a whole by its root: exclusively, and each process above it together with others. So whoever
asks for a part of it, or for a tree that it is part of, meets the first one's claim, also for what the tree forks
later; of two that ask at the same moment one is refused. Trees beside each other do not concern one another.

The claims are locks on /proc/PID itself: they end with their owner, however that ends, and leave no file. Everybody
may lock that: what somebody else than root holds is no claim, and is passed over.
Source: man flock(2); fs/locks.c lock_get_status().
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from migrate.errors import MigrateError, Reason, Refused
from migrate.inventory import proc
from migrate.journal import journal
from migrate.recovery import records
from tcpcp.criu import tree
from tcpcp.errors import KernelError


@contextlib.contextmanager
def of_tree(pid: int) -> Generator[None, None, None]:
    """Keep other migrations of *pid*, of what is below it, and of a tree that it is in, away.

    :raises Refused: there is one.
    """
    with contextlib.ExitStack() as claims:
        _claim(pid, fcntl.LOCK_EX, claims)
        # Who loses its parent meanwhile gets another one of these.
        for above in proc.ancestors(pid)[1:]:
            _claim(above, fcntl.LOCK_SH, claims)
        yield


def overlapping(pid: int) -> frozenset[int]:
    """The processes whose migration concerns that of *pid*: it, those above it, and those below it now."""
    below: list[int] = []
    with contextlib.suppress(KernelError):  # it has ended, which the checks say better
        below = tree.tasks_now(pid)
    return frozenset((*proc.ancestors(pid), *below))


def _claim(pid: int, how: int, claims: contextlib.ExitStack) -> None:
    try:
        descriptor = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # no such process, which the checks say better
    claims.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        holders = _holders(os.fstat(descriptor))
        ours = [one for one in holders if _is_ours(one[1])]
        if ours or not holders:
            raise _busy(pid, how, *(ours or [("", 0)])[0]) from None


def _busy(pid: int, how: int, kind: str, owner: int) -> Refused:
    if how == fcntl.LOCK_SH:
        text = f"another migrate is moving process {pid}, of whose tree this one is a part"
    elif kind == "READ":
        text = "another migrate is moving a process of this tree"
    else:
        text = "another migrate is moving this process"
    remedy = "Wait until it has ended."
    return Refused([Reason("busy", "origin", text + _who(owner), remedy)])


def _holders(locked: os.stat_result) -> list[tuple[str, int]]:
    """``READ`` for a claim together with others, or ``WRITE``, and whose; none if it was just given up."""
    device = locked.st_dev
    file = f"{os.major(device):02x}:{os.minor(device):02x}:{locked.st_ino}"
    lines = map(str.split, Path("/proc/locks").read_text().splitlines())
    return [(one[3], int(one[4])) for one in lines if len(one) > 5 and one[1] == "FLOCK" and one[5] == file]


def _is_ours(owner: int) -> bool:
    """Whether it is a process of root's, or one that cannot be seen here."""
    if owner <= 0:
        return True
    try:
        _, effective, *_ = proc.status(owner)["Uid"].split()
    except proc.Gone:
        return True
    return int(effective) == os.geteuid()


def _who(owner: int) -> str:
    """Which migration it is; it has no journal before its checks have passed."""
    if owner <= 0:
        return ""
    for directory in journal.all_of_this_host():
        with contextlib.suppress(FileNotFoundError, MigrateError):
            record = records.read(directory)
            if record.role == "origin" and record.owner and record.owner[0] == owner:
                return f": migration {record.migration_id} of process {record.pid} to {record.other_host}"
    return f": PID {owner}"
