"""A check that is made in a forked child of the test's process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

DEADLINE_S = 20


def in_child(check: Callable[[], bool]) -> int:
    """Fork; the child's process id. It ends with 0 if *check* is true there, and by a signal if it hangs."""
    pid = os.fork()
    if not pid:
        good = False
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(DEADLINE_S)
        try:
            good = check()
        finally:
            os._exit(0 if good else 1)
    return pid


def ended(pid: int) -> int:
    """Wait for the child; how it has ended, 0 if well."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
