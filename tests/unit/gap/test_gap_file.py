"""The file of packets that were sent on: what was kept first is found, whatever became of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.gap import file
from migrate.gap.file import GapFile


def test_what_was_kept_is_found_in_its_order(tmp_path: Path) -> None:
    one, other = GapFile(tmp_path), GapFile(tmp_path)
    one.add([b"first", b""])
    other.add([b"second"])
    assert file.read(tmp_path) == [b"first", b"", b"second"]
    assert (tmp_path / "gap").stat().st_mode & 0o777 == 0o600


def test_nothing_was_kept(tmp_path: Path) -> None:
    GapFile(tmp_path).add([])
    assert file.read(tmp_path) == file.read(tmp_path / "missing") == []


@pytest.mark.parametrize("left", range(1, 9))
def test_a_packet_that_is_cut_is_left_out(tmp_path: Path, left: int) -> None:
    GapFile(tmp_path).add([b"whole", b"broken"])
    path = tmp_path / "gap"
    path.write_bytes(path.read_bytes()[:-left])
    assert file.read(tmp_path) == [b"whole"]


def test_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that comes behind a hole is kept."""
    monkeypatch.setattr(file, "MOST_BYTES", 30)
    kept = GapFile(tmp_path)
    for packet in (b"0123456789", b"0123456789abcdef", b"1"):
        kept.add([packet])
    assert file.read(tmp_path) == [b"0123456789"]


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    GapFile(tmp_path / "missing").add([b"packet"])
