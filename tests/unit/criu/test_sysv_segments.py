"""Shared memory of System V in CRIU's images: which of it is to be locked, or removed, again."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycriu.images import pb

from migrate.criu import sysv_segments
from migrate.errors import KernelError, ProtocolError

HEAD = bytes(8)


class Calls:
    """The calls of shmctl(2) that were made, each answered with *answer*."""

    def __init__(self, answer: int) -> None:
        self.answer, self.made = answer, list[tuple[int, int]]()

    def shmctl(self, number: int, command: int, _: None) -> int:
        self.made.append((number, command))
        return self.answer


def segment(number: int, mode: int) -> bytes:
    desc = {"id": number, "key": 0, "uid": 0, "gid": 0, "cuid": 0, "cgid": 0, "mode": mode}
    message = pb.ipc_shm_entry(desc=desc, size=4096).SerializeToString()
    return struct.pack("<I", len(message)) + message


def calls(monkeypatch: pytest.MonkeyPatch, answer: int = 0) -> Calls:
    def here(_: int, call: Callable[[], Any]) -> Any:
        return call()

    made = Calls(answer)
    monkeypatch.setattr(sysv_segments.ipc_namespace, "within", here)
    monkeypatch.setattr(sysv_segments, "_libc", made)
    return made


def test_those_that_were_locked_or_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = (segment(0, 0o600), segment(5, 0o2600), segment(32769, 0o1600), segment(7, 0o3644))
    (tmp_path / "ipcns-shm-9.img").write_bytes(HEAD + b"".join(several))
    made = calls(monkeypatch)
    assert sysv_segments.put_back(1, tmp_path) == []
    assert made.made == [(5, 11), (32769, 0), (7, 11), (7, 0)]


def test_one_that_cannot_be_locked_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ipcns-shm-9.img").write_bytes(HEAD + segment(5, 0o2600))
    calls(monkeypatch, -1)
    (note,) = sysv_segments.put_back(1, tmp_path)
    assert "5" in note and "SHM_LOCK" in note


def test_one_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ipcns-shm-9.img").write_bytes(HEAD + segment(5, 0o1600))
    calls(monkeypatch, -1)
    with pytest.raises(KernelError):
        sysv_segments.put_back(1, tmp_path)


def test_a_tree_in_no_namespace_of_its_own(tmp_path: Path) -> None:
    assert sysv_segments.put_back(1, tmp_path) == []


@pytest.mark.parametrize("data", [HEAD + b"\xff", HEAD + segment(1, 0o1600)[:-1]])
def test_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ipcns-shm-9.img").write_bytes(data)
    with pytest.raises(ProtocolError):
        sysv_segments.put_back(1, tmp_path)
