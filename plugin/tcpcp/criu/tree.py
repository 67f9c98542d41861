"""Processes, their descriptors and their TCP sockets, through /proc.

Works on running processes as well as on processes that CRIU holds frozen. Only on frozen ones is the answer
still true when the caller reads it: a process that ends meanwhile is reported as KernelError ESRCH.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tcpcp.errors import KernelError, PermissionDenied
from tcpcp.kernel import diag

#: Two scans that agree end the search; a tree that never rests (a fork bomb) ends it too.
_MOST_SCANS = 50
#: Of a running tree a reading is out of date anyway, so not many are worth while.
_FEW_SCANS = 5

_SOCKET = "socket:["
#: What a descriptor leads to whose path the kernel does not tell. Source: include/uapi/linux/limits.h PATH_MAX.
TOO_LONG = "/... (a path of 4096 bytes or more)"


@dataclass(frozen=True, slots=True)
class HeldSocket:
    """A socket, and through which descriptors processes hold it.

    :ivar inode: the socket's inode number, its name in sock_diag and in CRIU's images.
    :ivar holders: (pid, fd) of each descriptor, at least one.
    """

    inode: int
    holders: list[tuple[int, int]]


def tasks(root_pid: int) -> list[int]:
    """Return the PIDs of the tree: *root_pid* first, every parent before its children.

    Zombies are in it, as they are in CRIU's images. A running tree is read again until two readings agree.

    :raises KernelError: ESRCH, there is no such process; EAGAIN, the tree does not come to rest.
    Source: man proc(5), /proc/PID/task/TID/children: exact only for frozen tasks.
    """
    before = _scan(root_pid)
    for _ in range(_MOST_SCANS):
        after = _scan(root_pid)
        if after == before:
            return after
        before = after
    raise KernelError("read(/proc/PID/task/TID/children)", errno.EAGAIN, f"the tree of process {root_pid}")


def tasks_now(root_pid: int) -> list[int]:
    """As :func:`tasks`, of a tree that runs and need not come to rest: then the last reading.

    A process in it may have ended, and a child may be missing, by the time the caller looks.

    :raises KernelError: ESRCH, there is no such process.
    """
    before = _scan(root_pid)
    for _ in range(_FEW_SCANS):
        after = _scan(root_pid)
        if after == before:
            break
        before = after
    return before


def threads(pid: int) -> list[int]:
    """Return the thread ids of *pid*, ascending.

    :raises KernelError: ESRCH, there is no such process.
    """
    with _process(pid, "open(/proc/PID/task)"):
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))  # noqa: PTH208


def descriptors(pid: int) -> dict[int, str]:
    """Return what each open descriptor of *pid* points to, e.g. ``socket:[123]`` or ``/etc/passwd``.

    A zombie has none. A descriptor that is closed during the call is left out. A path that is longer than the
    kernel tells is :data:`TOO_LONG`; through the link it is found all the same.

    :raises KernelError: ESRCH, there is no such process.
    :raises PermissionDenied: the process is not ours to look into.
    """
    found: dict[int, str] = {}
    with _process(pid, "open(/proc/PID/fd)"):
        directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(directory):  # noqa: PTH208
                with contextlib.suppress(FileNotFoundError):
                    found[int(name)] = target(name, directory)
        finally:
            os.close(directory)
    return found


def target(link: str, directory: int | None = None) -> str:
    """What *link*, of /proc and relative to *directory*, leads to; :data:`TOO_LONG` where the kernel does not tell.

    :raises OSError: as readlink(2).
    """
    try:
        return os.readlink(link, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return TOO_LONG


def sockets(pids: Iterable[int]) -> list[HeldSocket]:
    """Return all sockets, of any kind, that *pids* hold, in the order of their first descriptor.

    :raises KernelError, PermissionDenied: as :func:`descriptors`.
    """
    return held_in({pid: descriptors(pid) for pid in pids})


def sockets_now(pids: Iterable[int]) -> list[HeldSocket]:
    """As :func:`sockets`, of processes that run, and may end meanwhile: one that has ended holds none.

    :raises PermissionDenied: as :func:`descriptors`.
    """
    tables = {}
    for pid in pids:
        try:
            tables[pid] = descriptors(pid)
        except KernelError as error:
            if error.errno != errno.ESRCH:
                raise
    return held_in(tables)


def held_in(tables: dict[int, dict[int, str]]) -> list[HeldSocket]:
    """As :func:`sockets`, from what :func:`descriptors` said about each PID."""
    found: dict[int, HeldSocket] = {}
    for pid, table in tables.items():
        for fd, target in table.items():
            if target.startswith(_SOCKET):
                inode = int(target[len(_SOCKET) : -1])
                found.setdefault(inode, HeldSocket(inode, [])).holders.append((pid, fd))
    return list(found.values())


def tcp_sockets(pids: Iterable[int]) -> list[HeldSocket]:
    """Return the TCP sockets that *pids* hold, in every state but unbound.

    Only those of the caller's network namespace, and no MPTCP: who must not miss any looks at /proc for others.

    :raises KernelError, PermissionDenied: as :func:`descriptors`, or sock_diag failed.
    """
    held = sockets(pids)
    if not held:
        return []
    known = diag.tcp_inodes()
    return [one for one in held if one.inode in known]


def _scan(root_pid: int) -> list[int]:
    """Walk the tree once. A child that ended meanwhile is left out; the root must exist."""
    found = [root_pid]
    for pid in found:  # grows while it is walked
        try:
            found.extend(_children(pid))
        except KernelError:
            if pid == root_pid:
                raise
    return found


def _children(pid: int) -> Iterator[int]:
    for tid in threads(pid):
        try:
            text = Path(f"/proc/{pid}/task/{tid}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that ended; its children now belong to another thread or process
        yield from map(int, text.split())


@contextmanager
def _process(pid: int, call: str) -> Iterator[None]:
    """Turn the ways in which /proc says that a process is gone or not ours into our errors."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError):
        raise KernelError(call, errno.ESRCH, f"process {pid}") from None
    except PermissionError:
        # A process that is gone may say so as well.
        if not os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
            raise KernelError(call, errno.ESRCH, f"process {pid}") from None
        raise PermissionDenied(f"{call} for process {pid}: not permitted; run as root") from None
