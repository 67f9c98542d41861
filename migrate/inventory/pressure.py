"""Files of the kernel that tell of pressure (PSI): who writes one asks to be woken, and that is in the opening.

CRIU opens the file again and asks for nothing; then poll(2) says at once, for ever, that there is an error.
Source: Documentation/accounting/psi.rst, kernel/sched/psi.c psi_trigger_poll().
"""

from __future__ import annotations

import os
import re

from migrate.processes import mounts

_OF_HOST = "/proc/pressure/"
_OF_CGROUP = re.compile(r"/.*/(cpu|memory|io|irq)\.pressure")


def is_one(path: str, status: os.stat_result) -> bool:
    """Whether *path*, to which /proc/PID/fd/FD points, is one of these files."""
    return path.startswith(_OF_HOST) or (_OF_CGROUP.fullmatch(path) is not None and _is_of_cgroups(status))


def may_wake(flags: int) -> bool:
    """Whether an opening with these flags may have asked: it is for writing, which is of use for nothing else.

    Whether it has asked cannot be seen: poll(2) would take an event from the program.
    """
    return not flags & os.O_PATH and flags & os.O_ACCMODE != os.O_RDONLY


def _is_of_cgroups(status: os.stat_result) -> bool:
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    return any(one.device == device and one.kind.startswith("cgroup") for one in mounts.here())
