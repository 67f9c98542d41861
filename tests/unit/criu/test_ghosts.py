"""Directories that CRIU makes on the way to deleted ones, in its images."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from migrate.criu import ghosts
from migrate.errors import ProtocolError


def image(path: Path, *messages: Any) -> None:
    records = (one.SerializePartialToString() for one in messages)
    path.write_bytes(b"magic123" + b"".join(struct.pack("<I", len(one)) + one for one in records))


def test_what_is_made_on_the_way(tmp_path: Path) -> None:
    """Those of deleted directories only: for a deleted file CRIU makes none, it takes one that is there."""
    from pycriu.images import pb

    assert ghosts.missing(tmp_path) == []
    names = {1: "here/a/b/gone", 2: "here/c/gone", 3: "here/d/link", 4: "here/e/open", 5: "here/f/g/h"}
    (tmp_path / "here").mkdir()
    entries = []
    for number, name in names.items():
        entry = pb.file_entry(type=1, id=number)
        entry.reg.id, entry.reg.name = number, f"{tmp_path}/{name}"
        entries.append(entry)
    image(tmp_path / "files.img", *entries)
    kinds = {1: pb.GHOST, 2: pb.GHOST, 3: pb.LINKED, 5: pb.GHOST}
    remaps = [pb.remap_file_path_entry(orig_id=at, remap_id=at + 15, remap_type=kinds[at]) for at in kinds]
    image(tmp_path / "remap-fpath.img", *remaps)
    image(tmp_path / "ghost-file-10.img", pb.ghost_file_entry(uid=0, gid=0, mode=0o40755))
    image(tmp_path / "ghost-file-11.img", pb.ghost_file_entry(uid=0, gid=0, mode=0o100644))
    image(tmp_path / "ghost-file-14.img")
    assert ghosts.missing(tmp_path) == [f"{tmp_path}/here/a", f"{tmp_path}/here/a/b"]
    (tmp_path / "ghost-file-10.img").write_bytes(b"magic123\7")
    with pytest.raises(ProtocolError):
        ghosts.missing(tmp_path)
