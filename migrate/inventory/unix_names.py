"""The name of a unix socket of the tree, where its file is, and what CRIU makes of that."""

from __future__ import annotations

import fcntl
import os
import socket

from migrate.inventory import paths
from migrate.inventory.described import shown
from migrate.pb.session_pb2 import TakenName
from migrate.processes import bound_places

#: include/uapi/linux/un.h: a descriptor (O_PATH) of the file that a unix socket is bound to.
_SIOCUNIXFILE = 0x89E0


def of_unix(sock: socket.socket, name: str, pid: int, fd: int) -> TakenName | None:
    """The name of a unix socket; None if it has none that another host could have as well.

    :param name: as the kernel's table has it.
    :return: without mode and owner if its file has been deleted.
    """
    kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    if (file := _file_of(sock)) is None:
        if not name.startswith("@"):
            return None
        return TakenName(kind=TakenName.ABSTRACT, name=name, pid=pid, fd=fd, socket_type=kind)
    path, status = file
    if deleted := paths.is_deleted(path, status):
        path = name if name.startswith("/") else paths.without_mark(path, status)
    if not path.startswith("/") or shown(path) != path:
        return None  # see _without_text()
    found = TakenName(kind=TakenName.PATH, name=path, pid=pid, fd=fd, socket_type=kind)
    if deleted:  # CRIU binds to it and removes it; first it removes what is there
        return found
    found.mode, found.uid, found.gid = status.st_mode, status.st_uid, status.st_gid
    # CRIU takes one whose name ends so for a deleted one: criu/sk-unix.c unix_resolve_name().
    misread = name.startswith("/") and paths.ends_as_if_deleted(path)
    found.bound_name = name if misread or _renamed(name, status) else ""
    found.linked_name = name if bound_places.is_linked(name, path) else ""
    return found


def obstacle(sock: socket.socket, name: str, found: TakenName | None) -> tuple[str, str]:
    """Why a unix socket with that name cannot be moved, as the code of an obstacle and what it is of; or "".

    :param name, found: what :func:`of_unix` was given, and has said.
    """
    if found is None:
        return ("file-name", path) if (path := _without_text(sock)) else ("", "")
    if _is_misread(name, found):
        return "unix-misread", found.name
    if cannot_be_cut(name, found.name):
        return "unix-relative", f"{name} ({found.name})"
    return "", ""


def _without_text(sock: socket.socket) -> str:
    """The path, for people, of a unix socket whose path is not UTF-8, as are all texts that go to the other host.

    :return: "" of any other.
    """
    file = _file_of(sock)
    return shown(file[0]) if file is not None and shown(file[0]) != file[0] else ""


def _file_of(sock: socket.socket) -> tuple[str, os.stat_result] | None:
    """The file that a unix socket is bound to, as the kernel shows it; None: it is bound to none."""
    try:
        file = fcntl.ioctl(sock, _SIOCUNIXFILE)
    except OSError:
        return None
    try:
        return os.readlink(f"/proc/self/fd/{file}"), os.fstat(file)  # noqa: PTH115
    finally:
        os.close(file)


def _renamed(name: str, status: os.stat_result) -> bool:
    """Whether the file that was made under *name* has another path now, as HAProxy's, which binds elsewhere first.

    So has that of a program with another root directory (chroot), where the name begins at that: CRIU would bind it
    where our own root begins.
    """
    return name.startswith("/") and not paths.leads_to(name, status)  # relative: see cannot_be_cut()


def _is_misread(name: str, found: TakenName) -> bool:
    """Whether CRIU's dump fails of a socket that was bound to *name*, a relative one, as of a deleted one.

    It takes off the end that the kernel gives to the paths of deleted files, and then does not find *name* in it.
    """
    return bool(found.mode) and not name.startswith(("/", "@")) and paths.ends_as_if_deleted(found.name)


def cannot_be_cut(name: str, path: str) -> bool:
    """Whether CRIU's dump fails of a socket that was bound to *name*, a relative one, and whose file is at *path*.

    It keeps the directory that was worked in then: what is in *path* before *name*. One with ``..``, ``//`` or a
    link in it is not the end of its path, nor is that of a file that was renamed since.
    Source: criu/util.c cut_path_ending().
    """
    if name.startswith(("/", "@")):
        return False
    return not path.endswith("/" + name.removeprefix("./"))
