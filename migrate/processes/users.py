"""Who uses a directory, or something in it, under whatever name: in every process and every mount namespace.

A container has a directory of the host at a place of its own. So what a process has open is compared by device and
inode, and a mount by its file system and by which directory of that it shows, or is mounted on.
Source: man proc_pid_mountinfo(5), proc_pid_maps(5).
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from migrate.processes import mounts, stat

_Key = tuple[int, int]
#: Of the link to an open file: it was opened for writing.
_WRITABLE_LINK = 0o200


class _Place(NamedTuple):
    """A directory, as every mount namespace names it.

    :ivar path: in the file system, and not in the tree of mounts.
    """

    device: str
    path: str

    def holds(self, other: _Place) -> bool:
        """Whether *other* is this one, or below it."""
        return self.device == other.device and _within(other.path, self.path)


def of(top: str, besides: Collection[int] = ()) -> list[str]:
    """Return who uses something at or below the directory *top*: has it open or mapped, or works or runs in it.

    What was deleted from it counts too, for processes of our mount namespace.

    :param besides: PIDs that do not count.
    :return: e.g. ``redis-server (PID 812)``.
    """
    used: defaultdict[_Key, set[int]] = defaultdict(set)
    users: set[int] = set()
    ours = _namespace("self")
    for pid in stat.pids():
        with stat.passing_over():
            if pid not in besides:
                paths = _open(pid, used)
                if _namespace(str(pid)) == ours and any(_within(path, top) for path in paths):
                    users.add(pid)
    users.update(*(used[key] for key in _inodes(top) if key in used))
    return [name for name in map(_name, sorted(users)) if name]


def writing(file: tuple[int, int]) -> list[str]:
    """Return who has the file of that device and inode open for writing, or has mapped it so.

    :return: as :func:`of`; processes that our PID namespace does not see are not there.
    """
    found = []
    for pid in stat.pids():
        with stat.passing_over():
            if _writes(pid, file):
                found.append(_name(pid))
    return [name for name in found if name]


def mounted(top: str) -> list[str]:
    """Where *top*, or something at or below it, is mounted, or something on it, in any mount namespace."""
    here = mounts.here()
    wanted, found = _place(os.path.realpath(top), here), set[str]()
    found.update(one.shown for one in here if _within(one.place, top))
    for name, its in _seen_elsewhere():
        touching = {one.shown for one in its if wanted is not None and _touches(one, its, wanted)}
        found.update(f"{one}{name}" for one in touching)
    return sorted(found)


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top.rstrip('/')}/")


def _name(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return ""  # ended since
    return f"{stat.parse(text).comm} (PID {pid})"


# --- open files --------------------------------------------------------------------------------------------


def _writes(pid: int, file: _Key) -> bool:
    """The link of a descriptor has the mode in which it was opened (fs/proc/fd.c proc_fd_link())."""
    for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            link = f"/proc/{pid}/fd/{number}"
            if _key(link) == file and os.lstat(link).st_mode & _WRITABLE_LINK:
                return True
    return any(_key(f"/proc/{pid}/map_files/{one}") == file for one in _mapped_for_writing(pid))


def _key(link: str) -> _Key:
    status = os.stat(link)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _mapped_for_writing(pid: int) -> list[str]:
    """Ranges of files that are mapped shared, and may be written."""
    lines = (line.split() for line in Path(f"/proc/{pid}/maps").read_bytes().split(b"\n"))
    return [one[0].decode() for one in lines if len(one) > 5 and one[1][1:2] + one[1][3:4] == b"ws"]


def _open(pid: int, used: defaultdict[_Key, set[int]]) -> list[str]:
    """The paths of all files that a process holds, as it names them; each is added to *used*."""
    numbers = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    links = [f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe", *(f"fd/{one}" for one in numbers))]
    links += _mapped(pid)
    paths = []
    for link in links:
        with contextlib.suppress(OSError):
            path = os.readlink(link)  # noqa: PTH115
            if path.startswith("/"):
                paths.append(path)
                status = os.stat(link)  # noqa: PTH116
                used[status.st_dev, status.st_ino].add(pid)
    return paths


def _mapped(pid: int) -> list[str]:
    """Where /proc has what a process has mapped, each file once."""
    found = {}
    for line in Path(f"/proc/{pid}/maps").read_bytes().split(b"\n"):
        fields = line.split(maxsplit=5)
        if len(fields) > 5 and fields[5].startswith(b"/"):
            found[fields[5]] = f"/proc/{pid}/map_files/{fields[0].decode()}"
    return list(found.values())


def _inodes(top: str) -> Iterator[_Key]:
    """Of *top* and all that is in it."""
    for directory, below, names in os.walk(top):
        for path in (directory, *(f"{directory}/{name}" for name in (*below, *names))):
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                yield status.st_dev, status.st_ino


# --- mounts ------------------------------------------------------------------------------------------------


def _namespace(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115


def _seen_elsewhere() -> Iterator[tuple[str, list[mounts.Mount]]]:
    """The mounts of each namespace, and how they are told; who has another root sees other ones.

    They are read at once: of a process that has ended since they could not be, while others live there.
    """
    known: set[tuple[str, str]] = set()
    ours = _namespace("self")
    for pid in stat.pids():
        with stat.passing_over():
            key = _namespace(str(pid)), os.readlink(f"/proc/{pid}/root")  # noqa: PTH115
            if key not in known:
                its = mounts.parse(os.fsdecode(Path(f"/proc/{pid}/mountinfo").read_bytes()))
                known.add(key)
                yield "" if key[0] == ours else f" in the mount namespace of {_name(pid)}", its


def _place(path: str, seen: list[mounts.Mount]) -> _Place | None:
    """The place of *path*, without links, in the file system that it is on."""
    above = [one for one in seen if _within(path, one.place)]
    return _beneath(max(above, key=lambda one: len(one.place)), path) if above else None


def _beneath(mount: mounts.Mount, path: str) -> _Place:
    inner = os.path.relpath(path, mount.place)
    return _Place(mount.device, os.path.normpath(f"{mount.root.rstrip('/')}/{inner}"))


def _touches(one: mounts.Mount, all_: list[mounts.Mount], wanted: _Place) -> bool:
    """Whether a mount shows the directory or something in it, or is mounted there."""
    below = next((other for other in all_ if other.number == one.parent), None)
    return wanted.holds(_Place(one.device, one.root)) or (
        below is not None and below is not one and wanted.holds(_beneath(below, one.place))
    )
