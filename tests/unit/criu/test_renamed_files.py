"""Files whose name is gone, in CRIU's images: opened by their other name on the destination."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from pycriu import images

from migrate.criu import renamed_files
from migrate.errors import ProtocolError

REMAPS = [
    {"orig_id": 1, "remap_id": 2, "remap_type": "LINKED"},
    {"orig_id": 3, "remap_id": 4, "remap_type": "LINKED"},
    {"orig_id": 5, "remap_id": 6, "remap_type": "GHOST"},
]


def write(folder: Path, name: str, magic: str, entries: list[dict[str, Any]]) -> None:
    with (folder / name).open("wb") as file:
        images.dump({"magic": magic, "entries": entries}, file)


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = images.load(io.BytesIO((folder / name).read_bytes()))["entries"]
    return entries


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files that have another name, one that has none, and a file that is there, with the name of the first."""
    names = {
        1: "/s/gone",
        2: "/s/link_remap.2",
        3: "/s/other",
        4: "/s/link_remap.4",
        5: "/s/gone",
        7: "/s/gone",
    }
    owner = {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}
    reg = {"flags": "O_RDWR", "pos": 0, "fown": owner}
    files = [{"type": "REG", "id": n, "reg": {"id": n, "name": name, **reg}} for n, name in names.items()]
    write(tmp_path, "files.img", "FILES", files)
    write(tmp_path, "remap-fpath.img", "REMAP_FPATH", REMAPS)
    return tmp_path


def names(folder: Path) -> dict[int, str]:
    return {one["id"]: one["reg"]["name"] for one in read(folder, "files.img")}


def test_it_is_opened_by_its_other_name(folder: Path) -> None:
    before = names(folder)
    renamed_files.rename(folder, {"/s/gone": "/s/here", "/s/unused": "/s/x"})
    assert names(folder) == before | {1: "/s/here"}
    assert read(folder, "remap-fpath.img") == REMAPS[1:]


def test_without_such_files_nothing_is_touched(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    renamed_files.rename(folder, {})
    renamed_files.rename(folder, {"/s/unused": "/s/x"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "remap-fpath.img").unlink()
    renamed_files.rename(folder, {"/s/gone": "/s/here"})  # CRIU needed no other name for any
    assert [path.name for path in folder.iterdir()] == ["files.img"]


def test_damaged_images(folder: Path) -> None:
    whole = (folder / "files.img").read_bytes()
    for damaged in (whole[:-3], whole[:10], whole[:8] + b"\xff" * 40):
        (folder / "files.img").write_bytes(damaged)
        with pytest.raises(ProtocolError, match=r"files\.img"):
            renamed_files.rename(folder, {"/s/gone": "/s/here"})
