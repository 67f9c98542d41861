"""CRIU stops a task at a breakpoint of the processor's; the first one on a host waits for all its processors.

The kernel counts such breakpoints as events of perf, and has hooks in its scheduler while there is an event of any
task. To put the first one in takes 8 ms and more, in which the tree is frozen; the hooks stay as long as an event
does, whichever, and a second longer. So who is about to use CRIU has an event, which counts nothing.

Source: man perf_event_open(2); kernel/events/core.c account_event(), perf_sched_delayed(); compel/src/lib/infect.c
ptrace_set_breakpoint().
"""

from __future__ import annotations

import ctypes
import platform
import struct

_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "s390x": 331, "ppc64le": 319, "loongarch64": 241}
_libc = ctypes.CDLL(None, use_errno=True)
#: PERF_TYPE_SOFTWARE, the size that every kernel takes, PERF_COUNT_SW_DUMMY; and "disabled" among the flags.
_EVENT = struct.pack("=IIQ24xQ16x", 1, 64, 9, 1)
_OF_US, _ON_ANY_CPU, _NO_GROUP, _CLOSE_ON_EXEC = 0, -1, -1, 8


def ready() -> int:
    """Make an event, which waits if it is the first; its descriptor, or -1 where this kernel lets nobody have one.

    As long as it is open nobody waits for the first breakpoint.
    """
    number = _NUMBERS.get(platform.machine(), -1)
    return int(
        _libc.syscall(
            *(ctypes.c_long(number), _EVENT, _OF_US, _ON_ANY_CPU, _NO_GROUP, ctypes.c_ulong(_CLOSE_ON_EXEC))
        )
    )
