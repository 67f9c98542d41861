"""Who on this host has a file open, by what the file is and not by its name."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from migrate.inventory import proc

Key = tuple[int, int]


class Holder(NamedTuple):
    """A descriptor of some process.

    :ivar who: e.g. ``redis-server (PID 812)``.
    :ivar locks: as :class:`migrate.inventory.proc.FdInfo` has them.
    """

    who: str
    writes: bool
    locks: tuple[str, ...]


class SocketHolder(NamedTuple):
    """A descriptor of a socket."""

    who: str
    pid: int
    fd: int


def of_sockets(inodes: Collection[int]) -> dict[int, SocketHolder]:
    """Return who holds the sockets *inodes*: one holder of each, if it is in our PID namespace."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, SocketHolder] = {}
    for name in os.listdir("/proc") if links else ():  # noqa: PTH208
        if not name.isdecimal():
            continue
        try:
            for fd in Path(f"/proc/{name}/fd").iterdir():
                inode = links.get(str(fd.readlink()))
                if inode and inode not in found:
                    who = f"{proc.stat(int(name)).comm} (PID {name})"
                    found[inode] = SocketHolder(who, int(name), int(fd.name))
        except (OSError, proc.Gone):
            continue  # ended since, or closed since
    return found


def of(wanted: Collection[Key], besides: Collection[int] = ()) -> dict[Key, list[Holder]]:
    """Return who has open the files *wanted* (device and inode), leaving out the processes *besides*.

    Every descriptor of the host is looked at: about 2 us each.
    """
    found: defaultdict[Key, list[Holder]] = defaultdict(list)
    if not wanted:
        return found
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal() and int(name) not in besides:
            _look(int(name), wanted, found)
    return found


def below(top: str, besides: Collection[int] = ()) -> list[str]:
    """Return who uses something at or below the directory *top*: has it open or mapped, or works or runs in it."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdecimal() or int(name) in besides:
            continue
        try:
            if any(path == top or path.startswith(f"{top}/") for path in _used(int(name))):
                found.append(f"{proc.stat(int(name)).comm} (PID {name})")
        except (OSError, proc.Gone):
            continue  # ended since
    return found


def _used(pid: int) -> Iterator[str]:
    """The paths of all files that a process holds."""
    for name in ("cwd", "root", "exe", *(f"fd/{one}" for one in os.listdir(f"/proc/{pid}/fd"))):  # noqa: PTH208
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115
    for line in Path(f"/proc/{pid}/maps").read_bytes().split(b"\n"):
        fields = line.split(maxsplit=5)
        if len(fields) > 5:
            yield os.fsdecode(fields[5])


def _look(pid: int, wanted: Collection[Key], found: defaultdict[Key, list[Holder]]) -> None:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except OSError:
        return  # ended since
    for fd in numbers:
        try:
            status = Path(f"/proc/{pid}/fd/{fd}").stat()
            if (key := (status.st_dev, status.st_ino)) in wanted:
                info = proc.fdinfo(pid, int(fd))
                who = f"{proc.stat(pid).comm} (PID {pid})"
                found[key].append(Holder(who, info.flags & os.O_ACCMODE != os.O_RDONLY, info.locks))
        except (OSError, proc.Gone):
            continue  # closed since
