"""ptrace(2): a thread that stands still, and its registers on x86-64.

The tracer is the thread that calls; when it ends the kernel lets go what it traces.

Source: man ptrace(2); arch/x86/include/asm/user_64.h, user_regs_struct.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterator, Mapping

from migrate.errors import MigrateError

SEIZE, INTERRUPT = 0x4206, 0x4207
#: For waitpid(2): threads, too.
WALL = 0x40000000
_GETREGS, _SETREGS, _DETACH = 12, 13, 17
_EVENT_STOP = 128
#: How often we look whether another tracer has let go, or the thread has stopped.
_LOOK_S = 0.001
#: In the kernel's order, by the names that CRIU's images have for them.
_NAMES = (
    *("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di"),
    *("orig_ax", "ip", "cs", "flags", "sp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_Registers = ctypes.c_uint64 * len(_NAMES)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def call(request: int, tid: int, data: int | None = None) -> None:
    """One request for the thread *tid*. :raises OSError: the kernel refuses it."""
    if _libc.ptrace(request, tid, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def holding(tid: int, deadline: float) -> Iterator[None]:
    """The thread is in a ptrace-stop of ours; then it goes on with what it was in: stopped, frozen or running.

    :param deadline: of time.monotonic(): until then another tracer may let go of it.
    :raises MigrateError: none has, or the thread does not stop.
    :raises OSError: it cannot be traced, or has ended.
    """
    _seize(tid, deadline)
    call(INTERRUPT, tid)
    delivered = _stopped_by(tid, deadline)
    try:
        yield
    finally:
        call(_DETACH, tid, delivered)


def registers(tid: int) -> dict[str, int]:
    """Those of a thread that is held. :raises OSError: it has ended."""
    values = _Registers()
    call(_GETREGS, tid, ctypes.addressof(values))
    return dict(zip(_NAMES, values, strict=True))


def set_registers(tid: int, wanted: Mapping[str, int]) -> None:
    """All of them, of a thread that is held. :raises OSError: it has ended, or they make no sense."""
    values = _Registers(*(wanted[name] for name in _NAMES))
    call(_SETREGS, tid, ctypes.addressof(values))


def _seize(tid: int, deadline: float) -> None:
    while True:
        try:
            return call(SEIZE, tid)
        except OSError as error:
            if error.errno != errno.EPERM:  # which a thread that somebody traces gives
                raise
        _wait(f"somebody traces thread {tid}", deadline)


def _stopped_by(tid: int, deadline: float) -> int:
    """Wait for it to stop; the signal that it was about to get, and gets when it is let go; 0: none."""
    while True:
        pid, status = os.waitpid(tid, WALL | os.WNOHANG)
        if pid and not os.WIFSTOPPED(status):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if pid:
            return 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)
        _wait(f"thread {tid} does not stop", deadline)


def _wait(text: str, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise MigrateError(text)
    time.sleep(_LOOK_S)
