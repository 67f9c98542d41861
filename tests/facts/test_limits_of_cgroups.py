"""The limits of a real cgroup, of whichever version this machine has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.inventory import cgroups

_ROOTS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))


@pytest.fixture
def limited() -> Iterator[Path]:
    made = next(root for root in _ROOTS if root.is_dir()) / f"limits-{os.getpid()}"
    made.mkdir()
    yield made
    made.rmdir()


def test_of_a_process(limited: Path) -> None:
    with subprocess.Popen(["sleep", "100"]) as program:
        (limited / "cgroup.procs").write_text(str(program.pid))
        before = cgroups.of(program.pid).limits
        (limited / "pids.max").write_text("50")
        after = cgroups.of(program.pid).limits
        program.kill()
    assert set(after) - set(before) == {"pids.max 50"}
