"""What is watched on overlayfs has no path that could be found again; on a file system mounted there it has."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.inventory.descriptors import Descriptors
from migrate.inventory.files import Files

_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_CREATE = 0x100


def run(*words: str) -> None:
    subprocess.run(words, check=True)


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    run("mount", "-t", "tmpfs", "none", str(tmp_path))
    for name in ("lower", "upper", "work", "merged", "upper/volume"):
        (tmp_path / name).mkdir()
    options = ",".join(f"{name}={tmp_path / name[:5]}" for name in ("lowerdir", "upperdir"))
    run(
        "mount", "-t", "overlay", "-o", f"{options},workdir={tmp_path}/work", "none", str(tmp_path / "merged")
    )
    run("mount", "-t", "tmpfs", "none", str(tmp_path / "merged/volume"))
    yield tmp_path / "merged"
    run("umount", "-R", str(tmp_path))


def watched(path: Path) -> tuple[list[str], list[str]]:
    """Codes of obstacles, and paths."""
    descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        assert _LIBC.inotify_add_watch(descriptor, os.fsencode(path), _IN_CREATE) > 0
        files, found = Files(), Descriptors()
        found.add_process(os.getpid(), files)
        codes = [one.code for one in found.obstacles({os.getpid()}) if one.code.startswith("watch-")]
        return codes, [one.path for one in files.found if one.path == str(path)]
    finally:
        os.close(descriptor)


def test_the_reason_names_overlayfs(overlay: Path) -> None:
    assert watched(overlay) == (["watch-overlay"], [])


def test_the_remedy_helps(overlay: Path) -> None:
    assert watched(overlay / "volume") == ([], [str(overlay / "volume")])
