"""What a descriptor of inotify or fanotify watches, by path; the kernel tells inodes and handles only.

CRIU finds the paths in the same way (criu/fsnotify.c alloc_openable()) and watches them again by these.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from migrate.inventory import proc
from migrate.inventory.described import shown
from migrate.pb.session_pb2 import Obstacle
from migrate.processes import mounts

_LIBC = ctypes.CDLL(None, use_errno=True)
_HANDLE = struct.Struct("=Ii")
_MINOR_BITS = 20
#: What an obstacle is called of bits of a watch that CRIU masks out: it would tell of more. Source:
#: criu/fsnotify.c restore_one_inotify(); include/uapi/linux/inotify.h IN_ONESHOT, IN_EXCL_UNLINK.
_FORGOTTEN = {1 << 31: "watch-once", 1 << 26: "watch-unlinked"}
#: Where CRIU looks for an inode whose handle cannot be opened, as on overlayfs (criu/irmap.c hints).
_HINTS = (
    "/etc",
    "/var/spool",
    "/var/log",
    "/usr/share/dbus-1/services",
    "/usr/share/polkit-1/actions",
    "/lib/udev",
)


class Watch(NamedTuple):
    """One watch.

    :ivar path: what is watched; "" where no path leads to it.
    :ivar device: number of its file system, as mountinfo has it.
    :ivar whole: all of a file system is watched (FAN_MARK_FILESYSTEM).
    :ivar forgotten: codes of obstacles, of what it would be after the move.
    """

    path: str
    device: str
    whole: bool = False
    forgotten: tuple[str, ...] = ()


def of(pid: int, fd: int) -> list[Watch]:
    """What the descriptor *fd* of *pid* watches.

    :raises Gone: it was closed.
    """
    lines = [line for line in proc.text(pid, f"fdinfo/{fd}").split("\n") if line.startswith(("ino", "fan"))]
    mounted = {one.number: (one.place, one.device) for one in mounts.here()} if lines else {}
    found = (_watch(parse(line), mounted) for line in lines)
    return list(dict.fromkeys(watch for watch in found if watch is not None))


def parse(line: str) -> dict[str, str]:
    """The fields of a line of fdinfo, e.g. ``inotify wd:1 ino:13 sdev:fe00000 ...``; numbers are hexadecimal.

    Source: fs/notify/fdinfo.c.
    """
    return dict(word.split(":", 1) for word in line.split() if ":" in word)


def _watch(fields: dict[str, str], mounts: dict[int, tuple[str, str]]) -> Watch | None:
    if "mnt_id" in fields and "mask" in fields:
        path, device = mounts.get(_number(fields["mnt_id"]), ("", ""))
        return Watch(path, device)
    if "sdev" not in fields:
        return None  # a line about the whole descriptor
    number = _number(fields["sdev"])
    device = f"{number >> _MINOR_BITS}:{number & (1 << _MINOR_BITS) - 1}"
    if "ino" not in fields:
        return Watch("", device, whole=True)
    points = (point for point, one in mounts.values() if one == device)
    path = next(_paths(fields, points), "") or _hinted(
        os.makedev(*map(int, device.split(":"))), _number(fields["ino"])
    )
    mask = _number(fields.get("mask", "0"))
    return Watch(path, device, forgotten=tuple(code for bit, code in _FORGOTTEN.items() if mask & bit))


def _paths(fields: dict[str, str], points: Iterator[str]) -> Iterator[str]:
    """Paths by which the watched inode is reached, in the mounts at *points*."""
    try:
        name = bytes.fromhex(fields.get("f_handle", ""))[: _number(fields.get("fhandle-bytes", "0"))]
    except ValueError:
        return
    handle = ctypes.create_string_buffer(
        _HANDLE.pack(len(name), _number(fields.get("fhandle-type", "0"))) + name
    )
    for point in points:
        with contextlib.suppress(OSError):
            if path := _path(point, handle):
                yield path


def _path(point: str, handle: ctypes.Array[ctypes.c_char]) -> str:
    """The path of the inode with this handle in the mount at *point*; "" if it has none there."""
    mount = os.open(point, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = _LIBC.open_by_handle_at(mount, handle, os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(mount)
    if found < 0:
        return ""
    try:
        path = os.readlink(f"/proc/self/fd/{found}")  # noqa: PTH115
        its, status = os.fstat(found), os.lstat(path)
        return path if (its.st_dev, its.st_ino) == (status.st_dev, status.st_ino) else ""
    finally:
        os.close(found)


def _hinted(device: int, inode: int) -> str:
    for hint in _HINTS:
        for folder, _, names, fd in os.fwalk(hint):
            status = os.fstat(fd)
            if status.st_dev != device:
                break
            if status.st_ino == inode:
                return folder
            for name in names:
                with contextlib.suppress(OSError):
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    # Of overlayfs files may be on another device than their directory.
                    if (status.st_dev, status.st_ino) == (device, inode):
                        return f"{folder}/{name}"
    return ""


def obstacles(pid: int, fd: int, watch: Watch) -> Iterator[Obstacle]:
    """Yield what is against one watch of the descriptor."""
    for code in watch.forgotten:
        yield Obstacle(code=code, pid=pid, fd=fd, what=shown(watch.path))
    if not watch.path:
        nameless = "watch-overlay" if _on_overlay(watch) else "watch-nameless"
        yield Obstacle(code="watch-whole" if watch.whole else nameless, pid=pid, fd=fd, what=watch.device)


def _on_overlay(watch: Watch) -> bool:
    """Whether it is one of overlayfs, whose handles nobody can open, but by an option of the mount (nfs_export)."""
    return any(one.device == watch.device and one.kind == "overlay" for one in mounts.here())


def _number(digits: str) -> int:
    try:
        return int(digits, 16)
    except ValueError:
        return -1
