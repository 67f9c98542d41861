"""Paths of unix sockets on the destination: those that they had last, and none is left by a rollback.

A program that binds to one path and renames that to another (HAProxy does) is found by the second; the socket, and
so CRIU, remembers the first, which names nothing any more. In the images the first is replaced by the second.

Source: CRIU's images/sk-unix.proto, fdinfo.proto; criu/sk-unix.c unix_resolve_name(), bind_unix_sk().
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from migrate.criu import records
from migrate.files import beneath
from migrate.pb.session_pb2 import TakenName
from migrate.processes import unix_diag

_INODE_BITS = (1 << 32) - 1


def place(images: Path, wanted: Iterable[TakenName]) -> None:
    """Have CRIU bind those of *wanted* that were renamed to the path that they have now.

    :raises ProtocolError: the image is not CRIU's.
    """
    renamed = {one.bound_name: one for one in wanted if one.bound_name}
    files = images / "files.img"
    if renamed and files.exists():
        files.write_bytes(patched(files.read_bytes(), renamed))


def patched(files: bytes, renamed: Mapping[str, TakenName]) -> bytes:
    """files.img with the names of unix sockets replaced, and with who may use the file, which CRIU did not find.

    :param renamed: the name that a socket was bound to -> what it has now.
    :raises ProtocolError: it is not an image of CRIU's.
    """
    from pycriu.images import pb

    messages = []
    for entry, message in records.read(files, pb.file_entry, "files.img"):
        new = renamed.get(_text(entry.usk.name)) if entry.HasField("usk") else None
        if new is not None:
            _rename(entry.usk, new)
            message = entry.SerializeToString()
        messages.append(message)
    return records.with_messages(files, messages)


def absent(wanted: Iterable[TakenName]) -> list[str]:
    """Paths of *wanted* at which this host has nothing yet."""
    return [one.name for one in wanted if not os.path.lexists(one.name)]


def remove(paths: Iterable[str]) -> str:
    """Remove the sockets that a restore has left at *paths*, unless somebody uses them; no link is followed."""
    used = {one.file_inode for one in unix_diag.sockets().values()}
    removed = sum(_remove(Path(path), used) for path in paths)
    return f"{removed} unix sockets removed"


def _remove(path: Path, used: set[int]) -> bool:
    with contextlib.suppress(FileNotFoundError, beneath.LinkInPath), beneath.directory(path.parent) as folder:
        status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode) and status.st_ino & _INODE_BITS not in used:
            with beneath.acting_as_owner(folder):
                os.unlink(path.name, dir_fd=folder)  # noqa: PTH108
            return True
    return False


def _text(name: bytes) -> str:
    """As :mod:`migrate.processes.unix_diag` shows it."""
    return name.rstrip(b"\0").decode("utf-8", "replace")


def _rename(usk: Any, new: TakenName) -> None:
    usk.name = os.fsencode(new.name) + b"\0" * usk.name.endswith(b"\0")
    for field in ("name_dir", "deleted"):
        usk.ClearField(field)
    perms = usk.file_perms
    perms.mode, perms.uid, perms.gid = new.mode, new.uid, new.gid
