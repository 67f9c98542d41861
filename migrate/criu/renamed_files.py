"""Files that a process uses under a name that is gone, while they have another one, in CRIU's images.

glibc makes a named semaphore so: a temporary file that is mapped, linked to its name, and unlinked. CRIU gives
such a file a name of its own on the origin (criu/files-reg.c dump_linked_remap()), which nobody has on another
host. There the file is at its other name, where it was compared or copied: it is made to be opened by that.

Source: images/remap-file-path.proto, regfile.proto, fdinfo.proto of CRIU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from migrate.criu import records


def rename(images: Path, names: Mapping[str, str]) -> None:
    """Have the files that CRIU knows by a name that is gone opened by their other name.

    :param names: path that is gone -> the other one.
    :raises ProtocolError: an image is not CRIU's.
    """
    from pycriu.images import pb

    if not names:
        return
    remaps, files = images / "remap-fpath.img", images / "files.img"
    remapped = list(_entries(remaps, pb.remap_file_path_entry))
    linked = {one.orig_id for one in remapped if one.remap_type == pb.LINKED}
    known = list(_entries(files, pb.file_entry))
    found = [one.reg for one in known if one.id in linked and one.HasField("reg") and one.reg.name in names]
    if not found:
        return
    for reg in found:
        reg.name = names[reg.name]
    renamed = {reg.id for reg in found}
    _write(files, known)
    _write(remaps, [one for one in remapped if one.orig_id not in renamed])


def _entries(path: Path, kind: Any) -> Iterator[Any]:
    data = path.read_bytes() if path.exists() else b""
    return (entry for entry, _ in records.read(data, kind, path.name))


def _write(path: Path, entries: Iterable[Any]) -> None:
    messages = [one.SerializePartialToString() for one in entries]
    path.write_bytes(records.with_messages(path.read_bytes(), messages))
