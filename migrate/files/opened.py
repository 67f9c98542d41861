"""Whether somebody here has a file open for writing, asked of the kernel, which knows it of all processes.

A lease for reading (F_RDLCK) is given on a file only if nobody has it open for writing, or mapped so. To ask for it
costs what one call costs, and a look at all processes 34 us for each of them. Source: man fcntl(2); fs/locks.c
check_conflicting_open().
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Collection
from pathlib import Path

from migrate.errors import Taken
from migrate.files import leases
from migrate.processes import mounts, users

#: Their servers are asked for a lease, who may have reasons of their own. Source: fs/nfs, fs/smb: setlease.
_ASK_A_SERVER = ("nfs", "cifs", "smb")


def require_unwritten(name: str, folder: int, shown: Path, leased: Collection[str]) -> None:
    """Make sure that nobody here has *name* in *folder* open for writing, or has a lease on it.

    :param shown: what it is called in the message. :param leased: see :func:`migrate.files.leases.held`.
    :raises Taken: somebody has. :raises OSError: there is no such file.
    """
    hint = "End that program there, or let one of the two use another file; fuser -v shows who has it."
    if leases.is_on(os.stat(name, dir_fd=folder, follow_symlinks=False), leased):
        text = f"{shown} is copied there, and somebody there has a lease on it (F_SETLEASE) since the check"
        raise Taken(text, hint=hint)
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        who = _writer(file)
    finally:
        os.close(file)
    if who:
        text = f"{shown} is copied there, and {who} has opened it there for writing since the check"
        raise Taken(text, hint=hint)


def _writer(file: int) -> str:
    """Who has it open for writing; "": nobody."""
    # Who opens it in this moment makes the kernel send us a signal: one that is ignored, and not SIGIO.
    fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return _found(file) or ("" if _of_a_server(file) else "a program of another PID namespace")
    except OSError:  # a file system without leases
        return _found(file)
    return ""


def _found(file: int) -> str:
    status = os.fstat(file)
    return ", ".join(users.writing((status.st_dev, status.st_ino))[:3])


def _of_a_server(file: int) -> bool:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{file}").read_text().splitlines())
    number = int(lines["mnt_id"])
    return any(one.number == number and one.kind.startswith(_ASK_A_SERVER) for one in mounts.here())
