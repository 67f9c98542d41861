"""Deleted directories that a process uses, in CRIU's images: it makes them again, with all that they are in.

It removes them when the process is in them, and leaves those that it has made on the way there.

Source: CRIU's criu/files-reg.c create_ghost_dentry(), criu/util.c mkdirpat(); images/remap-file-path.proto,
ghost-file.proto.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from migrate.criu import records

#: The entry of a ghost, behind which its content comes.
_BEGIN_BYTES = 4096


def missing(images: Path) -> list[str]:
    """Directories that CRIU makes here on the way to deleted ones, those above others before them.

    :raises ProtocolError: an image is not CRIU's.
    """
    above = {folder for path in _directories(images) for folder in Path(path).parents}
    return sorted(str(folder) for folder in above if not os.path.lexists(folder))


def _directories(images: Path) -> Iterator[str]:
    from pycriu.images import pb

    remaps, files = images / "remap-fpath.img", images / "files.img"
    if not remaps.exists() or not files.exists():
        return
    known = records.read(remaps.read_bytes(), pb.remap_file_path_entry, remaps.name)
    of_ghosts = ((one.orig_id, one.remap_id) for one, _ in known if one.remap_type == pb.GHOST)
    ghosts = {number for number, content in of_ghosts if _is_directory(images, content)}
    for entry, _ in records.read(files.read_bytes(), pb.file_entry, files.name) if ghosts else ():
        if entry.id in ghosts and entry.HasField("reg") and Path(entry.reg.name).is_absolute():
            yield entry.reg.name


def _is_directory(images: Path, number: int) -> bool:
    from pycriu.images import pb

    path = images / f"ghost-file-{number:x}.img"
    if not path.exists():
        return False
    with path.open("rb") as file:
        begin = next(records.read(file.read(_BEGIN_BYTES), pb.ghost_file_entry, path.name), None)
    return begin is not None and stat.S_ISDIR(begin[0].mode)
