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
A_PART = "41 30 0:26 /lab/origin /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
READ_ONLY = UNIFIED.replace(" rw,nosuid", " ro,nosuid")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([V1, UNIFIED], ("/sys/fs/cgroup", "")),
        ([V1, HYBRID], ("/sys/fs/cgroup/unified", "")),
        ([READ_ONLY, HYBRID], ("/sys/fs/cgroup/unified", "")),
        ([UNIFIED, A_PART], ("/sys/fs/cgroup", "/lab/origin")),
        ([A_PART], ("/sys/fs/cgroup", "/lab/origin")),
        ([A_PART, HYBRID], ("/sys/fs/cgroup/unified", "")),
    ],
)
def test_mounted(lines: list[str], expected: tuple[str, str]) -> None:
    place, root = expected
    assert freezer.mount_point_in(mounts.parse("\n".join(lines))) == (Path(place), root)


@pytest.mark.parametrize(("root", "seen"), [("", "own"), ("/lab", ""), ("/other", None), ("/la", None)])
def test_whose_cgroup_is_seen(
    root: str, seen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a mount that shows a part of the hierarchy only what is in that part."""
    (tmp_path / "lab").mkdir()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "1:cpu:/\n0::/lab\n")
    point = freezer.MountPoint(tmp_path, root)
    if seen is None:
        with pytest.raises(Unavailable, match="not to be seen"):
            freezer.cgroup_of(point, 7)
    else:
        assert freezer.cgroup_of(point, 7) == (tmp_path / "lab" if seen else tmp_path)


def test_one_that_is_not_there_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was covered, or is in a cgroup namespace around ours."""
    for text in ("0::/lab\n", "0::/../lab\n"):
        monkeypatch.setattr(Path, "read_text", lambda *_, text=text, **__: text)
        with pytest.raises(Unavailable, match="not to be seen"):
            freezer.cgroup_of(freezer.MountPoint(tmp_path, ""), 7)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([V1], "no cgroup v2 is mounted"),
        ([], "no cgroup v2 is mounted"),
        (["- -", "1 2 - cgroup2", " - ", "\xff - cgroup2"], "no cgroup v2 is mounted"),
        ([UNIFIED, A_PART.replace(" rw,nosuid", " ro,nosuid")], "cgroup v2 is mounted read-only"),
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
