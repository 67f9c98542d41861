"""Readers of /proc: one file each, parsed, nothing judged.

All raise :class:`Gone` when the process, thread or descriptor is no longer there, and
:class:`migrate.errors.KernelError` when the kernel writes what no kernel known to us does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from migrate.errors import KernelError
from migrate.processes import mounts
from migrate.processes import stat as stats
from migrate.processes.stat import Stat, parse
from migrate.processes.stat import pids as pids
from tcpcp.criu.tree import target
from tcpcp.errors import KernelError as TcpcpKernelError
from tcpcp.errors import PermissionDenied

NAMESPACES = (
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
)


#: A line of /proc/PID/maps: addresses, mode with an ``s``, offset, device, inode, path.
_SHARED = re.compile(rb"^(\S+) (...s) \S+ \S+ (\d+) +(.+)$", re.MULTILINE)


#: Of /proc/PID/fdinfo/FD, which begins with position, flags, mount and inode.
_FIRST_LINES = 256


class Gone(Exception):
    """What was asked about has ended or was closed."""


class Mapping(NamedTuple):
    """A line of /proc/PID/maps.

    :ivar range: the addresses as text, the name in /proc/PID/map_files.
    :ivar mode: e.g. ``r-xp``.
    :ivar path: file, or ``[heap]`` and the like, or "".
    """

    range: str
    mode: str
    inode: int
    path: str

    @property
    def writes_file(self) -> bool:
        """Whether what is written there is written to the file."""
        return "w" in self.mode and "s" in self.mode


class FdInfo(NamedTuple):
    """/proc/PID/fdinfo/FD.

    :ivar flags: of open(2).
    :ivar more: the other fields, the last one of each name.
    :ivar locks: file locks and leases that this descriptor holds, as ``FLOCK WRITE 0 EOF``.
    """

    flags: int
    mount_id: int
    more: dict[str, str]
    locks: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether it was opened for writing."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def leased(self) -> bool:
        """Whether it has a lease."""
        return any(lock.startswith("LEASE") for lock in self.locks)

    @property
    def reads(self) -> bool:
        """Whether it was opened for reading."""
        return self.flags & os.O_ACCMODE != os.O_WRONLY


@contextmanager
def looking(pid: int = 0) -> Iterator[None]:
    """Turn the ways in which /proc says that something is gone into :class:`Gone`.

    :param pid: whose links or memory are read: when it is gone that may seem not to be permitted.
    """
    try:
        yield
    except OSError as error:
        # EINVAL: the mounts of a process that is just ending (fs/proc_namespace.c mounts_open_common()).
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EINVAL) and not (
            isinstance(error, PermissionError) and pid and not os.path.exists(f"/proc/{pid}")  # noqa: PTH110
        ):
            raise
        raise Gone(str(error.filename or "process")) from None


@contextmanager
def passing_over() -> Iterator[None]:
    """As :func:`migrate.processes.stat.passing_over`, also of what this module and :mod:`tcpcp.criu.tree` raise."""
    try:
        with stats.passing_over():
            yield
    except (Gone, PermissionDenied):
        pass
    except TcpcpKernelError as error:
        if error.errno not in stats.OF_ONE:
            raise


@contextmanager
def _as_expected(pid: int, name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError) as error:
        raise KernelError(f"/proc/{pid}/{name} cannot be understood: {error}") from error


def text(pid: int, name: str) -> str:
    """Read /proc/PID/*name*."""
    with looking(pid):
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")


def stat(pid: int) -> Stat:
    """Read /proc/PID/stat."""
    with _as_expected(pid, "stat"):
        return parse(text(pid, "stat"))


def status(pid: int) -> dict[str, str]:
    """Read /proc/PID/status."""
    return parse_fields(text(pid, "status"))


def memory_policy(pid: int) -> str:
    """The policy of the program's first mappings, e.g. ``bind:0``; "" if it is the usual one or not to be seen.

    No more than the beginning of /proc/PID/numa_maps is read: the kernel walks through all pages of what it shows.
    Source: Documentation/filesystems/proc.rst; fs/proc/task_mmu.c show_numa_map().
    """
    try:
        descriptor = os.open(f"/proc/{pid}/numa_maps", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a kernel without NUMA, or it has ended
        return ""
    try:
        words = os.read(descriptor, 200).split()
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    policy = words[1].decode(errors="replace") if len(words) > 1 else "default"
    return "" if policy in ("default", "local") else policy


def parse_fields(content: str) -> dict[str, str]:
    """Parse lines of ``name: value``; the last one of each name counts.

    In names of programs and files all that the kernel writes otherwise is the line feed, so nothing else that
    Python takes for the end of a line is one.
    """
    pairs = (line.split(":", 1) for line in content.split("\n") if ":" in line)
    return {name: value.strip() for name, value in pairs}


def maps(pid: int) -> list[Mapping]:
    """Read /proc/PID/maps: the mappings of files and of special kinds, not the anonymous ones."""
    with looking(pid):
        content = os.fsdecode(Path(f"/proc/{pid}/maps").read_bytes())
    with _as_expected(pid, "maps"):
        return [_with_its_name(pid, one) for one in parse_maps(content)]


def _with_its_name(pid: int, one: Mapping) -> Mapping:
    """The kernel writes a line feed as ``\\012``, and a name may have that itself: the link has the name as it is.

    Source: fs/proc/task_mmu.c show_map_vma().
    """
    if "\\012" in one.path:
        with contextlib.suppress(OSError):  # unmapped since
            return one._replace(path=os.readlink(f"/proc/{pid}/map_files/{one.range}"))  # noqa: PTH115
    return one


def shared_mappings(pid: int) -> Iterator[Mapping]:
    """The mappings of *pid* that it shares with whoever has the same file or memory (MAP_SHARED).

    Other processes have thousands of mappings, and hardly any that are shared: only those are taken apart.
    """
    with looking(pid):
        content = Path(f"/proc/{pid}/maps").read_bytes()
    for line in _SHARED.finditer(content):
        yield Mapping(line[1].decode(), line[2].decode(), int(line[3]), os.fsdecode(line[4]))


def parse_maps(content: str) -> list[Mapping]:
    """Parse the content of /proc/PID/maps.

    :raises ValueError: it is another text.
    """
    found = []
    for line in content.split("\n"):
        fields = line.split(" ", 5)
        if len(fields) == 6 and (path := fields[5].lstrip(" ")):
            found.append(Mapping(fields[0], fields[1], int(fields[4]), path))
    return found


def inode(pid: int, fd: int) -> int:
    """The inode of an open file, for which its file system is not asked; -1 before Linux 5.14.

    There may be tens of thousands on a host, so it does without the rest of :func:`fdinfo`: some 10 us.
    """
    with looking(pid):
        info = os.open(f"/proc/{pid}/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _, _, behind = os.read(info, _FIRST_LINES).partition(b"\nino:")
        finally:
            os.close(info)
    return int(behind.partition(b"\n")[0] or b"-1")


def fdinfo(pid: int, fd: int) -> FdInfo:
    """Read /proc/PID/fdinfo/FD."""
    with _as_expected(pid, f"fdinfo/{fd}"):
        return parse_fdinfo(text(pid, f"fdinfo/{fd}"))


def parse_fdinfo(content: str) -> FdInfo:
    """Parse the content of /proc/PID/fdinfo/FD.

    :raises ValueError: it is another text.
    """
    fields = parse_fields(content)
    flags, mount_id = int(fields.get("flags", "0"), 8), int(fields.get("mnt_id", "-1"))
    return FdInfo(flags, mount_id, fields, tuple(_locks(content)))


def _locks(content: str) -> Iterator[str]:
    """``lock: 1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF``: kind, mode, first and last byte."""
    for line in content.split("\n"):
        fields = line.split()
        if len(fields) == 9 and fields[0] == "lock:":
            yield f"{fields[2]} {fields[4]} {fields[7]} {fields[8]}"


def mount_ids(pid: int) -> set[int]:
    """Return the mounts of the mount namespace of *pid*, from /proc/PID/mountinfo.

    It shows a process with another root directory (chroot) only those below that, so where its namespace is ours
    we look at our own. Source: fs/proc_namespace.c show_mountinfo().
    """
    if link(pid, "ns/mnt") == link(os.getpid(), "ns/mnt"):
        pid = os.getpid()
    with _as_expected(pid, "mountinfo"):
        return {one.number for one in mounts.parse(text(pid, "mountinfo"))}


def link(pid: int, name: str) -> str:
    """Return what /proc/PID/*name* points to, e.g. ``cwd`` or ``exe``; ``TOO_LONG`` as of descriptors."""
    with looking(pid):
        return target(f"/proc/{pid}/{name}")


def namespaces(pid: int) -> dict[str, str]:
    """Return the namespaces of *pid* by kind, each as e.g. ``net:[4026531840]``; those the kernel has."""
    found = {}
    with looking(pid):
        for kind in os.listdir(f"/proc/{pid}/ns"):  # noqa: PTH208
            if kind in NAMESPACES:
                found[kind] = os.readlink(f"/proc/{pid}/ns/{kind}")  # noqa: PTH115
    return found


def descends(pid: int, tree: Collection[int]) -> bool:
    """Whether process *pid* is one of *tree*, or below it; not, if it has ended or cannot be read."""
    with passing_over():
        while pid > 0 and pid not in tree:
            pid = stat(pid).ppid
        return pid > 0
    return False


def grown(pids: Collection[int]) -> list[int]:
    """Return *pids* and the processes that are below them by now."""
    return [*pids, *(pid for pid in stats.pids() if pid not in pids and descends(pid, pids))]


def ancestors(pid: int) -> list[int]:
    """Return *pid* and its ancestors as this PID namespace sees them."""
    found: list[int] = []
    while pid > 0 and pid not in found:
        found.append(pid)
        try:
            pid = stat(pid).ppid
        except Gone:
            break
    return found
