"""The PID and the mount namespace that a tree got by an earlier move, found again when it is to be moved on.

They are entered as root, so it matters who has made them: anybody may make namespaces (user_namespaces(7)), and
call a program as ours. These here are owned by our own user namespace, so root has made them; their init runs as
root, as what :mod:`migrate.criu.pid_namespace` is; and the tree is in the same. What is asked is asked of one
opened directory of /proc, which is of this process or of none.

Source: man ioctl_ns(2), pid_namespaces(7), setns(2); kernel/pid.c pidns_install().
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from migrate.criu import pid_namespace
from migrate.errors import CriuError
from migrate.processes import identity, own_numbers, stat
from migrate.processes.own_numbers import Numbers

#: include/uapi/linux/nsfs.h.
_NS_GET_USERNS, _NS_GET_PARENT = 0xB701, 0xB702
_CLONE_NEWPID = 0x20000000
_KINDS = ("pid", "mnt")
#: Of its command line: those of Python, then the script.
_FIRST_WORDS = 5

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace(NamedTuple):
    """One that a tree got by a move.

    :ivar init: the process that keeps it, as this host numbers it.
    :ivar names: of the PID and of the mount namespace, by kind, as /proc shows them.
    :ivar descriptors: of both.
    """

    init: int
    names: dict[str, str]
    descriptors: dict[str, int]


@contextlib.contextmanager
def opened(root_pid: int) -> Iterator[Namespace | None]:
    """That of the tree below *root_pid*; None: it has none that we have made. Closed in the end."""
    with contextlib.ExitStack() as stack:
        found = None
        with contextlib.suppress(OSError, ValueError, IndexError):
            if not _in_ours(root_pid):
                found = _open(_parent(root_pid), root_pid, stack)
        yield found


def of(root_pid: int) -> Namespace | None:
    """As :func:`opened`, closed already."""
    with opened(root_pid) as found:
        return found._replace(descriptors={}) if found else None


def members(found: Namespace) -> list[int]:
    """The processes in that namespace, its init too; not those of one below it.

    Every process of this host is asked: not in the freeze.
    """
    return [pid for pid in stat.pids() if _is_in(found, pid)]


def sees(found: Namespace, path: str) -> bool:
    """Whether *path* is the same file in its mounts, which are those of when it was made, as in ours."""
    with contextlib.suppress(OSError):
        real = os.path.realpath(path)
        theirs = f"/proc/{found.init}/root{real}"
        return os.path.samestat(os.stat(real), os.stat(theirs))  # noqa: PTH116
    return False


def _is_in(found: Namespace, pid: int) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid") == found.names["pid"]  # noqa: PTH115
    return False


def _in_ours(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")  # noqa: PTH115


def _parent(pid: int) -> int:
    return stat.parse(Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")).ppid


def _open(init: int, root_pid: int, stack: contextlib.ExitStack) -> Namespace | None:
    process = os.open(f"/proc/{init}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, process)
    if not _is_init(_read(process, "status"), _read(process, "cmdline")):
        return None
    names, descriptors = {}, {}
    for kind in _KINDS:
        descriptors[kind] = one = os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        stack.callback(os.close, one)
        names[kind] = os.readlink(f"ns/{kind}", dir_fd=process)  # noqa: PTH115
        its = os.readlink(f"/proc/{root_pid}/ns/{kind}")  # noqa: PTH115
        if its != names[kind] or not _leads_to(one, _NS_GET_USERNS, "user"):
            return None
    if not _leads_to(descriptors["pid"], _NS_GET_PARENT, "pid"):
        return None
    return Namespace(init, names, descriptors)


def _is_init(status: bytes, command: bytes) -> bool:
    """Whether it is the first in its namespace, runs as root, and as our script."""
    fields = dict(line.partition(b":")[::2] for line in status.split(b"\n"))
    words = command.split(b"\0")[:_FIRST_WORDS]
    script = os.fsencode(Path(pid_namespace.__file__).name)
    return (
        identity.innermost_in(status) == 1
        and set(fields[b"Uid"].split()) == {b"0"}
        and any(word.rpartition(b"/")[2] == script for word in words)
    )


def _read(process: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    with open(descriptor, "rb") as file:  # noqa: PTH123
        return file.read()


def _leads_to(descriptor: int, question: int, kind: str) -> bool:
    """Whether what *question* gets of a namespace is the one of *kind* that we are in."""
    found = fcntl.ioctl(descriptor, question)
    try:
        return os.path.samestat(os.fstat(found), os.stat(f"/proc/self/ns/{kind}"))  # noqa: PTH116
    finally:
        os.close(found)


@contextlib.contextmanager
def children_in(found: Namespace | None) -> Iterator[None]:
    """Processes that this thread starts meanwhile are in the PID namespace *found*; None: in ours.

    It can make no threads meanwhile.

    :raises CriuError: that cannot be.
    """
    if found is None:
        yield
        return
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(found.descriptors["pid"])
        try:
            yield
        finally:
            _enter(ours)
    finally:
        os.close(ours)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWPID):
        why = os.strerror(ctypes.get_errno())
        raise CriuError(f"the PID namespace of the process cannot be entered: {why}")


def numbers(root_pid: int, tasks: Iterable[int]) -> Numbers:
    """The numbers of *tasks*, below *root_pid*, and of who keeps their namespace, as these see themselves."""
    if found := of(root_pid):
        return own_numbers.read([found.init, *tasks])
    with contextlib.suppress(OSError):
        if not _in_ours(root_pid):  # a container's, which keeps its namespace itself
            return own_numbers.read(tasks)
    return Numbers()
