"""How long a thread of the fair scheduler may run at a stretch: what it has asked for itself (since Linux 6.12).

The kernel answers with its own choice where a thread has asked for nothing; that choice depends on the host, and
is made anew by the other one.

Source: man sched_setattr(2), sched_runtime; kernel/sched/syscalls.c __setparam_fair(), get_params().
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import threading

from migrate import threads

#: Numbers of sched_setattr(2) and sched_getattr(2), for which there is no function in the C library: those of
#: x86-64, and those of all machines that came later. Source: man syscalls(2); include/uapi/asm-generic/unistd.h.
_SET, _GET = (314, 315) if os.uname().machine == "x86_64" else (274, 275)
#: struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, utilisation: least, most.
_ATTR = struct.Struct("=IIQiIQQQII")
_RUNTIME = 5
#: Others have no slice.
_FAIR = (os.SCHED_OTHER, os.SCHED_BATCH)

_libc = ctypes.CDLL(None, use_errno=True)


def asked_for(tid: int) -> int:
    """The slice that thread *tid* has asked for, in ns; 0: it leaves that to the kernel, or has another policy.

    :raises ProcessLookupError: it has ended.
    """
    found = _slice(tid)
    return 0 if found == usual() else found


def ask(tid: int, slice_ns: int) -> None:
    """Ask for thread *tid*; 0: leave it to the kernel. Nothing else of its scheduling changes.

    :raises OSError: the kernel does not let us.
    """
    if asked_for(tid) == slice_ns or (attributes := _get(tid))[1] not in _FAIR:
        return
    attributes[_RUNTIME] = slice_ns
    if _libc.syscall(_SET, tid, _ATTR.pack(*attributes), 0):
        raise _error()


@functools.cache
def usual() -> int:
    """What this host gives to those that ask for nothing, in ns; 0: it tells nothing, as before Linux 6.12."""
    found = [0]
    thread = threading.Thread(target=lambda: found.append(_ask_for_nothing()), name="slice")
    threads.start(thread)
    thread.join()
    return found[-1]


def _ask_for_nothing() -> int:
    """In a thread that ends: it has what its parent asked for, until it asks for nothing itself."""
    attributes = _get(0)
    attributes[1], attributes[_RUNTIME] = os.SCHED_OTHER, 0
    _libc.syscall(_SET, 0, _ATTR.pack(*attributes), 0)
    return _slice(0)


def _slice(tid: int) -> int:
    attributes = _get(tid)
    return int(attributes[_RUNTIME]) if attributes[1] in _FAIR else 0


def _get(tid: int) -> list[int]:
    buffer = ctypes.create_string_buffer(_ATTR.size)
    if _libc.syscall(_GET, tid, buffer, _ATTR.size, 0):
        raise _error()
    return list(_ATTR.unpack(buffer.raw))


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
