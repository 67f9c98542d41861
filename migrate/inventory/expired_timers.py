"""Periodic timers (timerfd) that have expired and were not read since.

The kernel sets one again when it is read, or asked for its time. Until then /proc shows one that is not set, as
which CRIU would make it again, and the periods that have gone by since are not counted.

Source: fs/timerfd.c timerfd_read_iter(), do_timerfd_gettime(), timerfd_show().
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from migrate.inventory import borrowed
from migrate.inventory.proc import FdInfo
from tcpcp.kernel.pidfd import Lender

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEVER = "(0, 0)"
#: struct itimerspec
_TIME = ctypes.c_long * 4


def is_one(info: FdInfo) -> bool:
    """Whether the timer that *info* is of is one of these."""
    interval = info.more.get("it_interval", _NEVER)
    return interval != _NEVER and info.more.get("it_value") == _NEVER and info.more.get("ticks") != "0"


def count_on(expired: Iterable[tuple[int, int]]) -> None:
    """Ask each of these, PID and descriptor, so that it is set again; one that was closed since is left alone."""
    with Lender() as lender:
        for pid, fd in expired:
            with borrowed.borrowed(lender, pid, fd) as timer:
                if timer is not None:
                    _LIBC.timerfd_gettime(timer, _TIME())
