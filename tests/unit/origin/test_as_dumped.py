"""How much is copied of files that others write meanwhile: what CRIU has written down."""

from __future__ import annotations

from pathlib import Path

import pytest
from pycriu import images

from migrate.errors import MigrateError, ProtocolError
from migrate.files import copies
from migrate.link.payloads import CHUNK_BYTES, Piece
from migrate.origin.as_dumped import AsDumped
from migrate.pb.session_pb2 import File


def dumped(folder: Path, *sizes: tuple[Path, int | None]) -> Path:
    """As CRIU writes it: of what is only appended to it writes no size."""
    owner = {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}
    reg = {"flags": "O_RDWR", "pos": 0, "fown": owner}
    entries = [
        {
            "type": "REG",
            "id": n,
            "reg": {"id": n, "name": str(path), **reg} | ({"size": size} if size else {}),
        }
        for n, (path, size) in enumerate(sizes)
    ]
    with (folder / "files.img").open("wb") as file:
        images.dump({"magic": "FILES", "entries": entries}, file)
    return folder


def used(path: Path, size: int) -> File:
    return File(path=str(path), use=File.OPEN, regular=True, size_bytes=size)


def test_what_grows_is_copied_up_to_what_was_dumped(tmp_path: Path) -> None:
    log, other = tmp_path / "log", tmp_path / "other"
    log.write_bytes(b"1" * 30)
    other.write_bytes(b"1")
    before = [used(log, 10), used(other, 5)]
    sizes = AsDumped(before, dumped(tmp_path, (log, 20), (other, None), (log, 20)))
    assert (sizes.size(str(log)), sizes.size(str(other)), sizes.size("/nowhere")) == (20, None, None)
    twice = AsDumped(before, dumped(tmp_path, (log, 20), (log, 21)))
    with pytest.raises(MigrateError, match="log has grown while the process was dumped"):
        twice.size(str(log))
    log.unlink()
    with pytest.raises(MigrateError, match="cannot read .*log"):
        sizes.size(str(log))


def test_what_has_not_changed_needs_no_images(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"1" * 30)
    (tmp_path / "files.img").write_bytes(b"x" * 20)
    assert AsDumped([used(log, 30)], tmp_path).size(str(log)) == 30
    with pytest.raises(ProtocolError, match="not an image"):
        AsDumped([used(log, 29)], tmp_path).size(str(log))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_no_more_is_sent(tmp_path: Path, size: int) -> None:
    log, sent = tmp_path / "log", list[Piece]()
    content = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"more"
    log.write_bytes(content)
    assert copies.send_file(str(log), sent.append, size=size) == size
    assert b"".join(one.data for one in sent) == content[:size] and sent[-1].last
    with pytest.raises(MigrateError, match="has become shorter"):
        copies.send_file(str(log), sent.append, size=len(content) + 1)
