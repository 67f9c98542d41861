"""Where a hook works: the network namespace of a tree, and how the tree numbers its processes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from tcpcp.criu import tree
from tcpcp.errors import KernelError

_CLONE_NEWNET = 0x40000000
#: include/uapi/linux/nsfs.h
_NS_GET_NSTYPE = 0xB703


def enter_network(pid: int) -> None:
    """Move the calling thread into the network namespace of *pid*, for good.

    :raises KernelError: there is no such process, or it is not ours to follow.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open(/proc/PID/ns/net)", error.errno or 0, f"process {pid}") from None
    try:
        enter(descriptor)
    finally:
        os.close(descriptor)


def enter(descriptor: int) -> None:
    """The same by a descriptor of the namespace. :raises KernelError: as :func:`enter_network`."""
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise KernelError("setns", ctypes.get_errno(), "a network namespace")


def given_by(pid: int) -> int | None:
    """The network namespace, not ours, that the process *pid* keeps open: a runtime gives it to CRIU.

    runc and crun open what their configuration names, and keep it open until CRIU has restored. CRIU itself puts
    it where nobody else sees it.

    :return: a descriptor; None: there is none, or several.
    """
    found: dict[int, int] = {}
    ours = os.stat("/proc/self/ns/net")  # noqa: PTH116
    for name in _names(f"/proc/{pid}/fd"):
        descriptor = _network(f"/proc/{pid}/fd/{name}", ours.st_dev)
        if descriptor is None:
            continue
        inode = os.fstat(descriptor).st_ino
        if inode == ours.st_ino or inode in found:
            os.close(descriptor)
        else:
            found[inode] = descriptor
    if len(found) == 1:
        return found.popitem()[1]
    for descriptor in found.values():
        os.close(descriptor)
    return None


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208
    except OSError:  # it has ended
        return []


def _network(path: str, file_system: int) -> int | None:
    """Open *path* if it is a network namespace. Nothing else is opened: of a device that may have consequences."""
    try:
        if os.stat(path).st_dev != file_system:  # noqa: PTH116
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    if is_network(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def is_network(descriptor: int) -> bool:
    """Whether *descriptor* is of a network namespace."""
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:  # no namespace at all
        return False


def parent(pid: int) -> int:
    """The parent of *pid*; 0: it has none here, or has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[1])


def name(pid: int) -> str:
    """What *pid* is called; "" when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def inside(pids: Iterable[int]) -> dict[int, int]:
    """PID here -> PID as its own namespace numbers it.

    :raises KernelError: one has ended.
    """
    return {pid: _innermost(pid) for pid in pids}


def here(root: int) -> dict[int, int]:
    """PID as the tree numbers it -> PID here, of the tree whose root is *root*.

    :raises KernelError: it has ended.
    """
    return {own: pid for pid, own in inside(tree.tasks(root)).items()}


def _innermost(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().split(b"\n")
    except OSError:
        raise KernelError("open(/proc/PID/status)", errno.ESRCH, f"process {pid}") from None
    return int(next(line for line in lines if line.startswith(b"NSpid:")).split()[-1])
