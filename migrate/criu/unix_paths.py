"""Paths of unix sockets on the destination: those that they had last, and none is left by a rollback.

A program that binds to one path and renames that to another (HAProxy does) is found by the second; the socket, and
so CRIU, remembers the first, which names nothing any more. In the images the first is replaced by the second.
And one whose name ends as those of deleted files are shown is no deleted one, for which CRIU takes it.

Source: CRIU's images/sk-unix.proto, fdinfo.proto; criu/sk-unix.c unix_resolve_name(), bind_unix_sk().
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from migrate.criu import records
from migrate.errors import Taken
from migrate.files import beneath
from migrate.pb.session_pb2 import TakenName
from migrate.processes import bound_places, unix_file

#: Of a socket that stays: CRIU connects to the one there. Source: criu/sk-unix.c USK_EXTERN.
_EXTERNAL = 1


class Bind(NamedTuple):
    """A socket that CRIU will bind to a path. :ivar deleted: that file was deleted at the origin."""

    path: str
    deleted: bool


def place(images: Path, wanted: Iterable[TakenName]) -> None:
    """Have CRIU bind those of *wanted* that were renamed, or taken for deleted, to the path that they have now.

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


def require_free(binds: Iterable[Bind]) -> None:
    """Have CRIU take no socket from anybody here: see :func:`in_use`.

    :raises Taken: somebody has one.
    """
    for path in in_use(binds):
        text = (
            f"the unix socket {ascii(path)[1:-1]}, which the process has as well, is in use by somebody else"
        )
        raise Taken(text, hint="End that program, or let one of the two use another path; ss -xap shows it.")


def require_same_places(wanted: Iterable[TakenName]) -> None:
    """Have CRIU bind no socket of *wanted* anywhere but where it is at the origin: see :mod:`bound_places`.

    :raises Taken: a symbolic link leads elsewhere.
    """
    for one in wanted:
        if place := bound_places.elsewhere(one):
            name = one.linked_name or one.name
            text = f"the unix socket {name} would be made at {place}, and not at {one.name}"
            raise Taken(text, hint="Have the same symbolic links on the way to it as on the origin.")


def binds(images: Path) -> set[Bind]:
    """Where CRIU will bind sockets of *images*. Source: CRIU's criu/sk-unix.c unlink_sk().

    :raises ProtocolError: the image is not CRIU's.
    """
    files = images / "files.img"
    return set(_bound(files.read_bytes())) if files.exists() else set()


def in_use(binds: Iterable[Bind]) -> list[str]:
    """Paths at which CRIU would bind sockets, and where somebody has one here; it would remove that.

    Also names of files that were deleted at the origin, whatever the origin has said of them.
    """
    return sorted(path for path in {one.path for one in binds} if _is_used(path))


def bound_once(binds: Collection[Bind]) -> set[str]:
    """Paths at which CRIU makes one file: where one was deleted it makes and renames several."""
    return {one.path for one in binds if not one.deleted} - {one.path for one in binds if one.deleted}


def _bound(files: bytes) -> Iterator[Bind]:
    from pycriu.images import pb

    sockets = (one.usk for one, _ in records.read(files, pb.file_entry, "files.img") if one.HasField("usk"))
    for one in sockets:
        if one.name[:1] not in (b"", b"\0") and not one.uflags & _EXTERNAL:
            yield Bind(str(Path(one.name_dir or "/", os.fsdecode(one.name.rstrip(b"\0")))), one.deleted)


def _is_used(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode) and unix_file.is_used_at(path)  # noqa: PTH116
    except (OSError, ValueError):
        return False  # there is nothing, nor can there be


def absent(wanted: Iterable[TakenName]) -> list[str]:
    """Paths of *wanted* at which this host has nothing yet."""
    return [one.name for one in wanted if not os.path.lexists(one.name)]


def remove(paths: Iterable[str]) -> str:
    """Remove the sockets that a restore has left at *paths*, unless somebody uses them; no link is followed."""
    removed = sum(_remove(Path(path)) for path in paths)
    return f"{removed} unix sockets removed"


def _remove(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, beneath.LinkInPath), beneath.directory(path.parent) as folder:
        if _is_dead(path.name, folder):
            with beneath.acting_as_owner(folder):
                os.unlink(path.name, dir_fd=folder)  # noqa: PTH108
            return True
    return False


def _is_dead(name: str, folder: int) -> bool:
    """Whether *name* in *folder* is a socket that nobody has any more."""
    file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        return stat.S_ISSOCK(os.fstat(file).st_mode) and not unix_file.is_used(file)
    finally:
        os.close(file)


def _text(name: bytes) -> str:
    """As :mod:`migrate.processes.unix_diag` shows it."""
    return name.rstrip(b"\0").decode("utf-8", "replace")


def _rename(usk: Any, new: TakenName) -> None:
    usk.name = os.fsencode(new.name) + b"\0" * usk.name.endswith(b"\0")
    for field in ("name_dir", "deleted"):
        usk.ClearField(field)
    perms = usk.file_perms
    perms.mode, perms.uid, perms.gid = new.mode, new.uid, new.gid
