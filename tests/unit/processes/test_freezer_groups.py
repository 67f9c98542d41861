"""Where cgroups are, from what the kernel says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrate.processes import freezer, mounts
from migrate.processes.freezer import Unavailable
from migrate.recovery import hold, instructions
from migrate.recovery.entries import Criu, Freezer, Keeper, Stop
from migrate.recovery.records import Record

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = "38 30 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
V1 = "31 30 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer"
READ_ONLY = UNIFIED.replace(" rw,nosuid", " ro,nosuid")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([V1, UNIFIED], "/sys/fs/cgroup"),
        ([V1, HYBRID], "/sys/fs/cgroup/unified"),
        ([READ_ONLY, HYBRID], "/sys/fs/cgroup/unified"),
    ],
)
def test_mounted(lines: list[str], expected: str) -> None:
    assert freezer.mount_point_in(mounts.parse("\n".join(lines))) == Path(expected)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([V1], "no cgroup v2 is mounted"),
        ([], "no cgroup v2 is mounted"),
        (["- -", "1 2 - cgroup2", " - ", "\xff - cgroup2"], "no cgroup v2 is mounted"),
        ([UNIFIED.replace(" / /", " /user.slice /")], "no cgroup v2 is mounted"),
        ([READ_ONLY], "cgroup v2 is mounted read-only"),
    ],
)
def test_not_mounted(lines: list[str], why: str) -> None:
    with pytest.raises(Unavailable, match=why):
        freezer.mount_point_in(mounts.parse("\n".join(lines)))


def test_whatever_is_not_there_holds_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert freezer.problem([gone], []) == f"{gone} was thawed or removed"
    freezer.freeze_again([gone])
    freezer.release([gone])
    assert freezer.members([gone]) == set()


@pytest.mark.parametrize("path", ["/none", "/" + "x" * 5000])
def test_a_person_is_told_when_only_a_signal_is_left(path: str) -> None:
    entries = [Freezer(path), Criu(1, -1), Stop(((os.getpid(), -1),)), Keeper(1, -1)]
    record = Record("0123456789ab", "origin", 7, "there", entries, "COMMITTED")
    assert "send it no SIGCONT" in hold.said(record)
    assert instructions.in_doubt(record)[0].endswith(hold.said(record))
    assert not hold.kept(record)
