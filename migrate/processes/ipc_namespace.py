"""The IPC namespace of another process: its System V objects and POSIX message queues are for those in it alone.

The kernel answers for the namespace of the thread that asks, also in /proc/sysvipc and /proc/sys: so one of ours
goes there, asks, and ends.

Source: man ipc_namespaces(7), setns(2); ipc/util.c sysvipc_proc_open(), ipc/ipc_sysctl.c set_lookup().
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from migrate import threads

_CLONE_NEWIPC = 0x08000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def is_own(pid: int) -> bool:
    """Whether *pid* is in another one than we are; not, if it has ended."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/ipc") != os.readlink("/proc/self/ns/ipc")  # noqa: PTH115
    return False


def within(pid: int, call: Callable[[], T]) -> T:
    """What *call* returns or raises in that of *pid*.

    :raises OSError: that cannot be entered, or *pid* has ended.
    """

    def there() -> T:
        descriptor = os.open(f"/proc/{pid}/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(descriptor, _CLONE_NEWIPC):
                raise OSError(ctypes.get_errno(), f"the IPC namespace of process {pid} cannot be entered")
        finally:
            os.close(descriptor)
        return call()

    with ThreadPoolExecutor(1) as pool:
        return threads.submit(pool, there).result()
