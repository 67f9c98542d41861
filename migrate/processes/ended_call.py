"""A system call that CRIU's dump has ended with EINTR, in a thread that was kept still here: it begins again.

See :mod:`migrate.processes.waits` for which, and why.
"""

from __future__ import annotations

import contextlib

from migrate.errors import MigrateError
from migrate.processes import ptrace, waits
from migrate.processes.waits import Wait


def begin_again(wait: Wait, deadline: float) -> bool:
    """Set the registers of a thread that runs no instruction so that its call begins again when it does.

    :param deadline: of time.monotonic(): until then CRIU may let go of it.
    :return: False: the thread has ended, or cannot be traced, or is not where its call has ended.
    """
    with contextlib.suppress(MigrateError, OSError), ptrace.holding(wait.tid, deadline):
        now = ptrace.registers(wait.tid)
        if (now["ax"], now["ip"], now["sp"], now["cs"]) != (waits.ENDED, wait.pc, wait.sp, waits.CODE_64):
            return False
        # No call is left that the kernel would go on with by itself.
        no_call = {"orig_ax": (1 << 64) - 1}
        ptrace.set_registers(wait.tid, now | waits.again(wait.number, now) | no_call)
        return True
    return False
