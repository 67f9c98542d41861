"""Descriptors of epoll in which CRIU would not find, or find twice, what they watch, or would arm it again.

What an epoll has told once (EPOLLONESHOT) it tells no more, errors and hang-ups neither, until the program arms it
again. To add it to another epoll arms it for those two.

An epoll goes on watching a file whose number was closed, while a copy of the descriptor is open anywhere. CRIU
looks for a copy in the same process and has the epoll watch that (criu/eventpoll.c): there has to be one, and one
that the epoll does not watch already.

CRIU asks the kernel of each whether it is what its number says, and the kernel goes through all that the epoll
watches for each answer: 8 ms for 1,000, 0.75 s for 10,000. :func:`say_all` finds out in one pass.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections import Counter
from collections.abc import Iterable, Mapping

from migrate.inventory import proc
from migrate.inventory.apart import KCMP
from tcpcp.criu import tree
from tcpcp.errors import TcpcpError

#: Bits of a mask that are no events: EPOLLEXCLUSIVE, EPOLLWAKEUP, EPOLLONESHOT, EPOLLET. Source: fs/eventpoll.c.
_PRIVATE_BITS = 0xF << 28
#: enum kcmp_type of include/uapi/linux/kcmp.h; struct kcmp_epoll_slot: the epoll, the number, which of that number.
_EPOLL_TFD = 7
#: From so many in one epoll on it is worth to look at all of them twice.
MANY = 3000
_EPOLL = "anon_inode:[eventpoll]"
#: What is no socket is asked for; so many at most.
_MOST_ASKED = 100
_libc = ctypes.CDLL(None, use_errno=True)


class _Slot(ctypes.Structure):
    _fields_ = (("efd", ctypes.c_uint32), ("tfd", ctypes.c_uint32), ("toff", ctypes.c_uint32))


def lost(pid: int, fd: int, content: str, table: Mapping[int, str]) -> int | None:
    """The first number that *fd* of *pid* watches and CRIU would not get to watch again; None: there is none.

    :param content: of the epoll's fdinfo.
    :param table: the descriptors of *pid*: number -> what /proc shows.
    """
    watched = parse(content)
    taken = {tfd for tfd, _, inode in watched if _is(pid, tfd, inode, table)}
    for tfd, which, inode in watched:
        if _is(pid, tfd, inode, table):
            continue
        slot = _Slot(fd, tfd, which)
        copies = {one for one in table if _is(pid, one, inode, table) and _same(pid, one, slot)}
        if not copies or copies & taken:
            return tfd
        taken |= copies
    return None


def say_all(pids: Iterable[int]) -> bool:
    """Whether what an epoll of *pids* watches is what its number says now, of all, and one watches :data:`MANY`.

    Sockets need not be asked for: of each there is one open file, which its inode names. Of a tree that runs it
    is so only in this moment.
    """
    try:
        return max((_largest(pid) for pid in pids), default=0) >= MANY
    except (_Otherwise, proc.Gone, TcpcpError):  # of what cannot be looked at nothing is known
        return False


class _Otherwise(Exception):
    """An epoll watches what is not what its number says."""


def _largest(pid: int) -> int:
    """How many the epoll watches that watches the most. :raises _Otherwise: one watches such a file."""
    table, largest = tree.descriptors(pid), 0
    for fd in (one for one, target in table.items() if target == _EPOLL):
        lines = _lines(proc.text(pid, f"fdinfo/{fd}"))
        if not _says_all(pid, fd, lines, table):
            raise _Otherwise
        largest = max(largest, len(lines))
    return largest


def _says_all(pid: int, fd: int, lines: list[list[str]], table: Mapping[int, str]) -> bool:
    if len({line[1] for line in lines}) < len(lines):  # a number that was another file's before
        return False
    where, asked = _of_sockets(), []
    for line in lines:
        number, inode = int(line[1]), int(line[-2].removeprefix("ino:"), 16)
        if line[-1] != where or table.get(number) != f"socket:[{inode}]":
            asked.append(number)
    # One at least: a kernel that does not answer is none that CRIU may be told of.
    asked = asked or [int(line[1]) for line in lines[:1]]
    return len(asked) <= _MOST_ASKED and all(_same(pid, one, _Slot(fd, one, 0)) for one in asked)


def _lines(content: str) -> list[list[str]]:
    """The words of each line of an epoll's fdinfo, as for :func:`parse`."""
    return [line.split() for line in content.split("\n") if line.startswith("tfd:")]


def _of_sockets() -> str:
    """How an epoll's fdinfo says that a file is a socket: by the device of all of them."""
    with socket.socket(socket.AF_UNIX) as one:
        return f"sdev:{os.minor(os.fstat(one.fileno()).st_dev):x}"


def disarmed(content: str) -> set[int]:
    """The numbers that an epoll watches without an event, since it has told one.

    :param content: of its fdinfo, as for :func:`parse`.
    """
    rows = (line.split() for line in content.split("\n") if line.startswith("tfd:"))
    return {int(row[1]) for row in rows if not int(row[3], 16) & ~_PRIVATE_BITS}


def parse(content: str) -> list[tuple[int, int, int]]:
    """The number, how many of the same number were before it, and the inode, of each line of an epoll's fdinfo.

    Source: fs/eventpoll.c ep_show_fdinfo(): ``tfd: 5 events: 19 data: 5  pos:0 ino:1a41a sdev:d``.
    """
    seen: Counter[int] = Counter()
    found = []
    for line in content.split("\n"):
        if line.startswith("tfd:"):
            fields = line.replace(": ", ":").split()
            tfd = int(line.split()[1])
            inode = next((word[4:] for word in fields if word.startswith("ino:")), "0")
            found.append((tfd, seen[tfd], int(inode, 16)))
            seen[tfd] += 1
    return found


def _is(pid: int, fd: int, inode: int, table: Mapping[int, str]) -> bool:
    """Whether descriptor *fd* is open and a file of that inode."""
    target = table.get(fd, "")
    if target.startswith(("socket:[", "pipe:[")):  # there may be thousands
        return target.endswith(f":[{inode}]")
    try:
        return bool(target) and os.stat(f"/proc/{pid}/fd/{fd}").st_ino == inode  # noqa: PTH116
    except OSError:
        return False


def _same(pid: int, fd: int, slot: _Slot) -> bool:
    """Whether *fd* is the very file that the epoll watches there. Source: man kcmp(2), KCMP_EPOLL_TFD."""
    return int(_libc.syscall(KCMP, pid, pid, _EPOLL_TFD, fd, ctypes.byref(slot))) == 0
