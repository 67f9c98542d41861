"""Who on this host has something open, by what it is and not by its name: every other process is looked at."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import NamedTuple

from migrate.inventory import proc
from tcpcp.criu import tree

Key = tuple[int, int]


class Holder(NamedTuple):
    """A descriptor of some process.

    :ivar who: e.g. ``redis-server (PID 812)``.
    :ivar locks: as :class:`migrate.inventory.proc.FdInfo` has them.
    """

    who: str
    writes: bool
    locks: tuple[str, ...]


class Held(NamedTuple):
    """A descriptor of some process.

    :ivar target: what /proc shows, e.g. ``pipe:[123]`` or ``/etc/passwd``.
    """

    pid: int
    fd: int
    target: str


class SocketHolder(NamedTuple):
    """A descriptor of a socket."""

    who: str
    pid: int
    fd: int


def everywhere(besides: Collection[int] = ()) -> Iterator[Held]:
    """Yield every descriptor of the processes that our PID namespace sees, leaving out the processes *besides*.

    They run on, and what has just ended or was closed is left out. None of it is asked of a file system, which
    may be one that does not answer any more. Some 3 us each.
    """
    for pid in proc.pids():
        if pid not in besides:
            with proc.passing_over():
                yield from _table(pid) or _of_threads(pid)


def _table(pid: int) -> list[Held]:
    return [Held(pid, fd, target) for fd, target in tree.descriptors(pid).items()]


def _of_threads(pid: int) -> list[Held]:
    """Of a process whose first thread has ended, while others live, by the number of one of those."""
    for tid in tree.threads(pid):
        with proc.passing_over():  # a thread ends, and the next one has the same
            if tid != pid and (table := _table(tid)):
                return table
    return []


def named(pid: int) -> str:
    """The process for people, e.g. ``redis-server (PID 812)``.

    :raises Gone: it has ended.
    """
    return f"{proc.stat(pid).comm} (PID {pid})"


def of_sockets(inodes: Collection[int]) -> dict[int, SocketHolder]:
    """Return who holds the sockets *inodes*: one holder of each, if it is in our PID namespace."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, SocketHolder] = {}
    for one in everywhere() if links else ():
        inode = links.get(one.target)
        if inode and inode not in found:
            with proc.passing_over():
                found[inode] = SocketHolder(named(one.pid), one.pid, one.fd)
    return found


def of(wanted: Collection[Key], besides: Collection[int] = ()) -> dict[Key, list[Holder]]:
    """Return who has open the files *wanted* (device and inode), leaving out the processes *besides*."""
    found: defaultdict[Key, list[Holder]] = defaultdict(list)
    for one in everywhere(besides) if wanted else ():
        if one.target.startswith("/"):
            with contextlib.suppress(OSError, proc.Gone):  # closed since
                if (key := key_of(f"/proc/{one.pid}/fd/{one.fd}")) in wanted:
                    info = proc.fdinfo(one.pid, one.fd)
                    found[key].append(Holder(named(one.pid), info.writes, info.locks))
    return found


def key_of(place: str) -> Key:
    """The device and inode of the file to which *place*, in /proc, leads.

    :raises OSError: it was closed.
    """
    status = os.stat(place)  # noqa: PTH116
    return status.st_dev, status.st_ino
