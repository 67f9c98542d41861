"""What apt has downloaded is whole, whenever it was killed before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from migrate.lab.errors import LabError
from migrate.lab.vm import cache, debian

NAME = "linux-image-6.12.1-amd64_6.12.1-1_amd64.deb"


def test_a_download_that_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    packages = debian.Packages()
    packages.downloads.mkdir(parents=True)
    (packages.directory / "updated").touch()
    contents = [b"half", b"the whole"]

    def apt(command: Sequence[object], *, cwd: Path, **_: Any) -> str:
        content = contents.pop(0)
        (cwd / NAME).write_bytes(content)
        if content == b"half":
            raise LabError("killed")
        return ""

    monkeypatch.setattr(cache, "run", apt)
    with pytest.raises(LabError, match="killed"):
        packages.download("linux-image-6.12.1-amd64")
    for _ in range(2):  # the second time it is there
        assert packages.download("linux-image-6.12.1-amd64").read_bytes() == b"the whole"


def test_lists_that_somebody_else_has_got_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two labs' first ``up``: one gets them, the other waits for it."""
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    packages = debian.Packages()
    asked: list[Sequence[str]] = []

    def apt(command: Sequence[str], **_: object) -> str:
        asked.append(command)
        return ""

    monkeypatch.setattr(cache, "run", apt)
    with cache.locked("lists-amd64"):
        packages.directory.mkdir()
        with pytest.raises(LabError):
            monkeypatch.setattr(cache, "BUILD_DEADLINE_S", 0.1)
            packages.update()
    packages.update()
    packages.update()
    assert sum("update" in one for one in asked) == 1
