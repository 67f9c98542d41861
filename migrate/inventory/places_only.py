"""Descriptors that are a place only (O_PATH): CRIU opens those of files, directories and links again, no others.

It asks a socket, a pipe or an eventfd by the descriptor what it is, and there is no answer; of a memfd it sets the
position. Source: criu/files.c dump_one_file(), criu/memfd.c memfd_open_inode_nocache(); man open(2), O_PATH.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping

from migrate.inventory import devices, no_file, proc
from migrate.inventory.described import shown
from migrate.pb.session_pb2 import Obstacle

#: Of the link to a descriptor: it was opened to be read, or written. Source: fs/proc/fd.c proc_fd_link().
_READ_OR_WRITTEN = 0o600


def obstacles(tables: Mapping[int, Mapping[int, str]], *, sockets: bool) -> Iterator[Obstacle]:
    """Yield those of *tables* that CRIU does not open again.

    :param tables: what each descriptor points to, by PID and number.
    :param sockets: also those of a socket itself, and not of its file; there may be thousands to be looked at.
    """
    for pid, table in tables.items():
        for fd, target in table.items():
            if sockets or not target.startswith("socket:["):
                with contextlib.suppress(OSError, proc.Gone):  # closed since
                    if _is_one(pid, fd) and not _is_opened_again(target, f"/proc/{pid}/fd/{fd}"):
                        yield Obstacle(code="place-only", pid=pid, fd=fd, what=shown(target))


def _is_one(pid: int, fd: int) -> bool:
    """The link of another one may have neither mode as well (open(2) with the access mode 3), so it is asked."""
    link = os.lstat(f"/proc/{pid}/fd/{fd}")
    return not link.st_mode & _READ_OR_WRITTEN and bool(proc.fdinfo(pid, fd).flags & os.O_PATH)


def _is_opened_again(target: str, through: str) -> bool:
    status = os.stat(through)  # noqa: PTH116
    if not target.startswith("/") or no_file.is_memory(target, through):
        return False
    kind = stat.S_IFMT(status.st_mode)
    return kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK) or devices.is_everywhere(status)
