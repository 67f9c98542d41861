"""A tree in an IPC namespace of its own: CRIU makes anew what is in there. Here is what it would not make whole.

Source: criu/ipc_ns.c; man sysvipc(7), mq_overview(7), semop(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from migrate.inventory import proc, sysv_tables
from migrate.inventory.described import shown
from migrate.pb.session_pb2 import Obstacle
from migrate.processes import ipc_namespace

_IPC_STAT = 2
#: Where struct msqid64_ds of 64-bit machines has how many bytes it may hold (include/uapi/asm-generic/msgbuf.h).
_MSG_QBYTES = 88
#: The largest message that CRIU can send again (criu/ipc_ns.c MSGMAX).
_MOST_OF_A_MESSAGE = 8192
#: The same number on all machines. Source: man fsopen(2), fsmount(2); FSCONFIG_CMD_CREATE.
_FSOPEN, _FSCONFIG, _FSMOUNT, _CREATE = 430, 431, 432, 6
_ATTACHED = re.compile(rb"^\S+ \S+ \S+ (\S+) (\d+) +/SYSV[0-9a-f]{8} \(deleted\)$", re.MULTILINE)
#: So many of a kind are named.
_NAMED = 3

_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class _Objects(NamedTuple):
    """What is in one: segments as their table has them, sets of semaphores, message queues that would not be made
    whole, and names of POSIX message queues."""

    segments: list[dict[str, int]]
    semaphores: list[str]
    queues: list[str]
    posix: list[str]


def has(inside: Iterable[int]) -> bool:
    """Whether the tree *inside* has one: its root is in it, or its processes are in several, which is refused."""
    return any(map(ipc_namespace.is_own, inside))


def obstacles(inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield what is in the one of the tree *inside* that CRIU cannot make again as it is, and what is attached of
    another one."""
    pid = next(iter(inside), 0)
    attached = [(one, *found) for one in inside for found in _attached(one)]
    objects = _within(inside, _objects) or _Objects([], [], [], [])
    for code, several in (
        ("sysv-queue", objects.queues),
        ("posix-queue", objects.posix),
        ("sysv-undo", objects.semaphores),
    ):
        if several:
            more = f" and {len(several) - _NAMED} more" if len(several) > _NAMED else ""
            yield Obstacle(code=code, pid=pid, what=", ".join(several[:_NAMED]) + more)
    known = {row["shmid"] for row in objects.segments}
    for one, device, number in attached:
        if number not in known:
            yield Obstacle(code="sysv-elsewhere", pid=one, what=_segment(number))
        elif device != _usual_device():  # huge pages are on a file system of their own
            yield Obstacle(code="sysv-huge", pid=one, what=_segment(number))


def shared(inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield the segments that others have attached as well: who they are the kernel does not tell.

    :param inside: the whole tree, and it is frozen: one that is just forking has more than were counted.
    """
    if not has(inside):
        return
    attached = Counter(number for pid in inside for _, number in _attached(pid))
    for row in _within(inside, _segments) or ():
        if attached[row["shmid"]] != row["nattch"]:
            yield Obstacle(code="sysv-elsewhere", pid=next(iter(inside)), what=_segment(row["shmid"]))


def without_segments(pid: int, mappings: list[proc.Mapping]) -> list[proc.Mapping]:
    """Those of the *mappings* of *pid* that are no shared memory of System V; all, if its namespace is ours.

    By inode and device a segment is the same as another one of another namespace.
    """
    others = [one for one in mappings if not one.path.startswith("/SYSV")]
    return others if len(others) < len(mappings) and ipc_namespace.is_own(pid) else mappings


def idle_bytes(inside: Collection[int]) -> int:
    """How much memory is in segments that nobody has attached, which no process shows as its own."""
    rows = (_within(inside, _segments) or ()) if has(inside) else ()
    return sum(row["rss"] + row["swap"] for row in rows if not row["nattch"])


def _within(inside: Iterable[int], call: Callable[[], T]) -> T | None:
    """What *call* returns in the namespace of the first of *inside* that is there; None: none is."""
    for pid in inside:
        with contextlib.suppress(proc.Gone), proc.looking(pid):
            return ipc_namespace.within(pid, call)
    return None


def _segments() -> list[dict[str, int]]:
    return sysv_tables.rows("shm")


def _objects() -> _Objects:
    semaphores = [f"ipcs -s -i {row['semid']}" for row in sysv_tables.rows("sem")]
    return _Objects(_segments(), semaphores, list(_queues()), _posix())


def _queues() -> Iterator[str]:
    """Those that may hold more or less than a new one, or a message that is too large for CRIU."""
    for row in sysv_tables.rows("msg"):
        what = f"ipcs -q -i {row['msqid']}"
        status = ctypes.create_string_buffer(256)
        if _libc.msgctl(row["msqid"], _IPC_STAT, status):
            continue  # it is gone
        limit = int.from_bytes(status.raw[_MSG_QBYTES : _MSG_QBYTES + 8], "little")
        if limit != _setting("msgmnb"):
            yield f"{what}: it may hold {limit} bytes"
        elif row["cbytes"] > _MOST_OF_A_MESSAGE < _setting("msgmax"):
            yield f"{what}: it may hold a message of more than {_MOST_OF_A_MESSAGE} bytes"


def _setting(name: str) -> int:
    return int(Path("/proc/sys/kernel", name).read_text())


def _posix() -> list[str]:
    """The POSIX message queues: the names in a mount of their own, which nobody else sees."""
    with contextlib.ExitStack() as stack:

        def opened(descriptor: int) -> int:
            if descriptor < 0:
                raise FileNotFoundError
            stack.callback(os.close, descriptor)
            return descriptor

        with contextlib.suppress(FileNotFoundError):  # a kernel without them
            made = opened(_libc.syscall(_FSOPEN, b"mqueue", 1))
            if not _libc.syscall(_FSCONFIG, made, _CREATE, None, None, 0):
                mount = opened(_libc.syscall(_FSMOUNT, made, 1, 0))
                directory = opened(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount))
                return sorted(map(shown, os.listdir(directory)))  # noqa: PTH208
        return []


def _attached(pid: int) -> list[tuple[str, int]]:
    """The segments that *pid* has attached, each as often as it has: their device, and number."""
    with contextlib.suppress(proc.Gone), proc.looking(pid):
        content = Path(f"/proc/{pid}/maps").read_bytes()
        return [(found[1].decode(), int(found[2])) for found in _ATTACHED.finditer(content)]
    return []


@functools.cache
def _usual_device() -> str:
    """That on which memory without a file is, as /proc/PID/maps has it."""
    descriptor = os.memfd_create("device")
    try:
        device = os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)
    return f"{os.major(device):02x}:{os.minor(device):02x}"


def _segment(number: int) -> str:
    return f"ipcs -m -i {number}"
