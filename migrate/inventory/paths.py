"""Which path leads to a file that a process uses: its own, or another name that it has beside one that is gone."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os

#: What the kernel shows behind the path of what has been deleted. Source: fs/d_path.c d_path().
_DELETED = " (deleted)"
#: So many names of a directory, to find another one of a file.
_MOST_LOOKED_AT = 10_000
#: A path must be shorter than this, or no call takes it as a whole. Source: include/uapi/linux/limits.h PATH_MAX.
_PATH_BYTES = 4096


def is_too_long(path: str) -> bool:
    """Whether no call takes it as a whole."""
    return len(os.fsencode(path)) >= _PATH_BYTES


def leads_to(path: str, status: os.stat_result) -> bool:
    """Whether *path* leads to that file: below a later mount, or beyond a bind mount of a part, none does."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(path), status)  # noqa: PTH116
    return False


def looked_at(path: str, through: str) -> tuple[str, os.stat_result]:
    """The path of what *through*, a link of /proc, leads to, and what it is: both of one file.

    :param path: what the link was seen to show; a program that goes on may have changed that since.
    :raises OSError: it was closed since, or is nothing with a path any more.
    """
    status = os.stat(through)  # noqa: PTH116
    if leads_to(path, status):
        return path, status
    file = os.open(through, os.O_PATH | os.O_CLOEXEC)
    try:
        now = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
        if now.startswith("/"):
            return now, os.fstat(file)
        raise FileNotFoundError(errno.ENOENT, "closed", through)
    finally:
        os.close(file)


def is_deleted(path: str, status: os.stat_result) -> bool:
    """Whether the kernel says of the file, which it shows as *path*, that it has been deleted.

    A name may end so, too: then the file has it still, and the path as it is leads there.
    """
    return path.endswith(_DELETED) and (status.st_nlink == 0 or not leads_to(path, status))


def without_mark(path: str, status: os.stat_result) -> str:
    """The path that the file has or had, of which the kernel shows *path*."""
    return path.removesuffix(_DELETED) if is_deleted(path, status) else path


def seen_through(path: str, through: str) -> str:
    """As :func:`without_mark` of what *through*, a link of /proc, leads to; *path* itself if that is gone."""
    with contextlib.suppress(OSError):
        return without_mark(path, os.stat(through))  # noqa: PTH116
    return path


def is_root(pid: int, status: os.stat_result) -> bool:
    """Whether it is the root directory of *pid*; not if that has ended."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(f"/proc/{pid}/root"), status)  # noqa: PTH116
    return False


def ends_as_if_deleted(path: str) -> bool:
    """Whether somebody who does not look at the file takes it for a deleted one."""
    return path.endswith(_DELETED)


def other_name(path: str, status: os.stat_result) -> str:
    """Another name of a file beside the one that is gone, as glibc's sem_open() leaves it; "": it has none there.

    CRIU gives it one as well, for the time of its dump.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(os.path.dirname(path)) as entries:  # noqa: PTH120
        for entry in itertools.islice(entries, _MOST_LOOKED_AT):
            if entry.inode() == status.st_ino and not entry.name.startswith("link_remap."):
                found.append(entry)
    same = (one.path for one in found if os.path.samestat(one.stat(follow_symlinks=False), status))
    return min(same, default="")
