"""Which processes there are, and /proc/PID/stat: its fields, named as in man proc(5)."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

#: Of the flags: the kernel made it for itself (include/linux/sched.h).
_PF_KTHREAD = 0x00200000

#: What /proc answers of a process that ends meanwhile, or that not even root may look into. EINVAL: its mounts
#: (fs/proc_namespace.c mounts_open_common()); EACCES: its namespaces (fs/proc/namespaces.c proc_ns_readlink()).
#: ENAMETOOLONG: a path that is longer than the kernel tells (fs/d_path.c), as anybody may have one.
#: What is short here, as descriptors are (EMFILE), is none of these: then nothing at all would be seen.
OF_ONE = frozenset(
    {errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.EIO, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
)


class Stat(NamedTuple):
    """Those that we use.

    :ivar starttime: clock ticks since boot.
    :ivar exit_signal: what its parent gets when it ends, 0 for nothing.
    :ivar env_end: where its environment ends; 0 within execve(2), which has made the memory and not yet filled it.
    """

    state: str
    ppid: int
    pgrp: int
    session: int
    tty_nr: int
    kernel_thread: bool
    starttime: int
    comm: str
    exit_signal: int = signal.SIGCHLD
    env_end: int = 0


def parse(line: str) -> Stat:
    """What the file says; the name may hold spaces and parentheses.

    :raises ValueError, IndexError: it is another text.
    """
    fields = line[line.rindex(")") + 2 :].split()
    state, ppid, pgrp, session, tty = fields[0], *map(int, fields[1:5])
    name = line[line.index("(") + 1 : line.rindex(")")]
    kernel_thread, started = bool(int(fields[6]) & _PF_KTHREAD), int(fields[19])
    exit_signal, env_end = int(fields[35]), int(fields[48])
    return Stat(state, ppid, pgrp, session, tty, kernel_thread, started, name, exit_signal, env_end)


def pids() -> list[int]:
    """The processes of this host that our PID namespace sees, those of namespaces below it too."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208


@contextmanager
def passing_over() -> Iterator[None]:
    """Around the look at one of all processes: go on with the next one if this has ended, or cannot be read.

    Never around one that is moved: a reason against the move would be lost.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in OF_ONE:
            raise
