"""Descriptors of anonymous inodes: which of them CRIU does not dump, or makes again as another thing."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping

from migrate.inventory import borrowed, epolls, expired_timers, proc, watches
from migrate.inventory.files import Files
from migrate.pb.session_pb2 import Obstacle
from tcpcp.criu import tree
from tcpcp.kernel.pidfd import Lender

#: What begins the name of one, as /proc/PID/fd/FD points to it.
PREFIX = "anon_inode:"
#: Of pidfd_open(2), since Linux 6.9; what CRIU opens again is of a process. Source: include/uapi/linux/pidfd.h.
_PIDFD_THREAD = os.O_EXCL
#: Clocks of timerfd_create(2) that wake the machine, which CRIU does not know (criu/include/timerfd.h). Source:
#: include/uapi/linux/time.h.
_ALARM_CLOCKS = {"8": "CLOCK_REALTIME_ALARM", "9": "CLOCK_BOOTTIME_ALARM"}

#: A descriptor that an epoll watches and that is closed is looked for so many times more: between two readings of
#: /proc a server may have accepted it, or closed it.
_LOOKS = 3


class Anonymous:
    """Collects those of a tree.

    :ivar expired: for :func:`migrate.inventory.expired_timers.count_on`: PID and descriptor.
    """

    def __init__(self) -> None:
        self.expired: list[tuple[int, int]] = []
        self._pidfds: list[tuple[int, int, str]] = []
        self._watching: list[tuple[int, int, str]] = []
        self._epolls: list[tuple[int, int]] = []
        self._disarmed: list[tuple[int, int, set[int]]] = []
        self._obstacles: list[Obstacle] = []

    def add(self, pid: int, fd: int, target: str, table: Mapping[int, str], files: Files) -> None:
        """Look at one, and hand those with a path to *files*.

        :param target: what /proc/PID/fd/FD points to. :param table: where each descriptor of *pid* does.
        :raises Gone: it was closed.
        """
        match target.removeprefix(PREFIX):
            case "[pidfd]":
                self._add_pidfd(pid, fd)
            case "[eventpoll]":
                self._add_epoll(pid, fd, table)
            case "[timerfd]":
                self._add_timer(pid, fd)
            case "[eventfd]":
                if proc.fdinfo(pid, fd).more.get("eventfd-semaphore", "0") != "0":
                    self._stands_in_the_way("eventfd-semaphore", pid, fd)
            case "inotify" | "[fanotify]":
                self._add_watching(pid, fd, target, files)
            case "[signalfd]":
                pass
            case _:
                self._stands_in_the_way("anonymous", pid, fd, target)

    def _stands_in_the_way(self, code: str, pid: int, fd: int, what: str = "") -> None:
        self._obstacles.append(Obstacle(code=code, pid=pid, fd=fd, what=what))

    def _add_pidfd(self, pid: int, fd: int) -> None:
        info = proc.fdinfo(pid, fd)
        if info.flags & _PIDFD_THREAD:
            self._stands_in_the_way("pidfd-thread", pid, fd)
        else:
            self._pidfds.append((pid, fd, info.more.get("Pid", "-1")))

    def _add_epoll(self, pid: int, fd: int, table: Mapping[int, str]) -> None:
        self._epolls.append((pid, fd))
        content = proc.text(pid, f"fdinfo/{fd}")
        if (number := self._lost(pid, fd, content, table)) is not None:
            self._stands_in_the_way("epoll-closed", pid, fd, str(number))
        if numbers := epolls.disarmed(content):
            self._disarmed.append((pid, fd, numbers))

    @staticmethod
    def _lost(pid: int, fd: int, content: str, table: Mapping[int, str]) -> int | None:
        """As :func:`migrate.inventory.epolls.lost`, of a program that opens and closes some meanwhile."""
        number = epolls.lost(pid, fd, content, table)
        for _ in range(_LOOKS):
            if number is None:
                break
            content, table = proc.text(pid, f"fdinfo/{fd}"), tree.descriptors(pid)
            if number != epolls.lost(pid, fd, content, table):
                number = None
        return number

    def _add_timer(self, pid: int, fd: int) -> None:
        info = proc.fdinfo(pid, fd)
        if clock := _ALARM_CLOCKS.get(info.more.get("clockid", "")):
            self._stands_in_the_way("alarm-clock", pid, fd, clock)
        elif expired_timers.is_one(info):
            self.expired.append((pid, fd))

    def _add_watching(self, pid: int, fd: int, target: str, files: Files) -> None:
        self._watching.append((pid, fd, target))
        for watch in watches.of(pid, fd):
            self._obstacles.extend(watches.obstacles(pid, fd, watch))
            if watch.path:
                files.add_watched(pid, fd, watch.path)

    def obstacles(self, lender: Lender, inside: Collection[int]) -> Iterator[Obstacle]:
        """Yield what CRIU does not dump, or makes again as another thing.

        :param inside: PIDs of the tree.
        """
        yield from self._obstacles
        for pid, fd, other in self._pidfds:
            if int(other) > 0 and int(other) not in inside:
                yield Obstacle(code="pidfd", pid=pid, fd=fd, what=other)
        for pid, fd in self._epolls:
            if borrowed.polls_busily(lender, pid, fd):
                yield Obstacle(code="epoll-busy", pid=pid, fd=fd)
        for pid, fd, numbers in self._disarmed:
            # An event that waits would come at once over there; of the others it is a note that one may.
            ended = [one for one in sorted(numbers) if borrowed.has_ended(lender, pid, one)]
            code = "epoll-disarmed" if ended else "epoll-oneshot"
            yield Obstacle(code=code, pid=pid, fd=fd, what=str(ended[0]) if ended else "")
        for pid, fd, kind in self._watching:
            if borrowed.has_events(lender, pid, fd):
                yield Obstacle(code="watch-unread", pid=pid, fd=fd, what=kind)
