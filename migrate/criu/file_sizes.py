"""How long each file was when CRIU dumped it, by its images: it opens none that has another size.

Source: CRIU's criu/files-reg.c dump_one_reg_file(), validate_file(); images/regfile.proto, fdinfo.proto.
"""

from __future__ import annotations

from pathlib import Path

from migrate.criu import records


def of(images: Path) -> dict[str, set[int]]:
    """Path -> sizes, of those of which CRIU asks for it: not of one that is only appended to.

    One that grows meanwhile, and is open several times, has several.

    :raises ProtocolError: the image is not CRIU's.
    """
    from pycriu.images import pb

    files = images / "files.img"
    found = records.read(files.read_bytes(), pb.file_entry, files.name) if files.exists() else ()
    sizes: dict[str, set[int]] = {}
    for one, _ in found:
        if one.HasField("reg") and one.reg.HasField("size"):
            sizes.setdefault(one.reg.name, set()).add(one.reg.size)
    return sizes
