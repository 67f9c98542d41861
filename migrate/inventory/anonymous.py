"""Descriptors of anonymous inodes: which of them CRIU does not dump, or makes again as another thing."""

from __future__ import annotations

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle

#: What begins the name of one, as /proc/PID/fd/FD points to it.
PREFIX = "anon_inode:"
#: Those that CRIU dumps (criu/files.c dump_one_file()).
_SUPPORTED = frozenset(
    {"[eventfd]", "[eventpoll]", "inotify", "[fanotify]", "[signalfd]", "[timerfd]", "[pidfd]"}
)
#: Clocks of timerfd_create(2) that wake the machine, which CRIU does not know (criu/include/timerfd.h). Source:
#: include/uapi/linux/time.h.
_ALARM_CLOCKS = {"8": "CLOCK_REALTIME_ALARM", "9": "CLOCK_BOOTTIME_ALARM"}


def obstacle(pid: int, fd: int, kind: str) -> Obstacle | None:
    """What is against this descriptor because of its kind, what /proc shows behind the prefix; None: nothing.

    :raises Gone: it was closed.
    """
    if kind not in _SUPPORTED:
        return Obstacle(code="anonymous", pid=pid, fd=fd, what=PREFIX + kind)
    if kind == "[timerfd]":
        clock = proc.fdinfo(pid, fd).more.get("clockid", "")
        if clock in _ALARM_CLOCKS:
            return Obstacle(code="alarm-clock", pid=pid, fd=fd, what=_ALARM_CLOCKS[clock])
    if kind == "[eventfd]" and proc.fdinfo(pid, fd).more.get("eventfd-semaphore", "0") != "0":
        return Obstacle(code="eventfd-semaphore", pid=pid, fd=fd)
    return None
