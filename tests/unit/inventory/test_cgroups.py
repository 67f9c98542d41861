"""The limits of a process's cgroup: read of both versions, and told where they stay behind."""

from __future__ import annotations

from pathlib import Path

import inventories as two
import pytest

from migrate.checks import around
from migrate.inventory import cgroups
from migrate.pb.session_pb2 import Cgroup
from migrate.processes import mounts

V2 = {
    "memory.max": "max\n",
    "memory.low": "0\n",
    "pids.max": "max\n",
    "cpu.max": "max 100000\n",
    "io.max": "",
}
LIMITED = Cgroup(path="/lim", limits=["memory.max 209715200", "pids.max 50"])


def mounted(place: Path, kind: str = "cgroup2 cgroup2 rw") -> list[mounts.Mount]:
    return mounts.parse(f"31 23 0:28 / / rw - ext4 /dev/vda rw\n40 31 0:36 / {place} rw - {kind}\n")


def write(folder: Path, **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("_max", ".max")).write_text(value)


def test_version_2_the_nearest_limit_of_each_kind(tmp_path: Path) -> None:
    write(tmp_path / "a/b", **V2)
    write(tmp_path / "a", **V2 | {"pids.max": "50\n", "memory.max": "1000\n"})
    assert cgroups.limits("0::/a/b\n", mounted(tmp_path)) == Cgroup(
        path="/a/b", limits=["memory.max 1000", "pids.max 50"]
    )
    write(tmp_path / "a/b", pids_max="7\n", io_max="8:0 rbps=1000 wbps=max\n")
    found = cgroups.limits("0::/a/b\n", mounted(tmp_path))
    assert set(found.limits) == {"memory.max 1000", "pids.max 7", "io.max 8:0 rbps=1000 wbps=max"}


def test_no_limits(tmp_path: Path) -> None:
    write(tmp_path / "a", **V2)
    write(tmp_path, pids_max="5\n")  # there is none at the root
    assert cgroups.limits("0::/a\n", mounted(tmp_path)) == Cgroup()
    assert cgroups.limits("0::/\n", mounted(tmp_path)) == Cgroup()


@pytest.mark.parametrize(
    ("line", "mount"),
    [("0::/../a", None), ("0::/gone", None), ("4:memory:/a", None), ("0::/a", "tmpfs x rw")],
)
def test_what_is_not_to_be_seen(tmp_path: Path, line: str, mount: str | None) -> None:
    write(tmp_path / "a", pids_max="5\n")
    table = mounted(tmp_path, mount) if mount else mounted(tmp_path)
    assert cgroups.limits(line, table) == Cgroup()


def test_version_1(tmp_path: Path) -> None:
    write(tmp_path / "a", **{"memory.limit_in_bytes": "209715200\n", "cpu.shares": "1024\n"})
    table = mounted(tmp_path, "cgroup cgroup rw,cpu,memory")
    assert cgroups.limits("4:cpu,memory:/a\n1:name=systemd:/b", table) == Cgroup(
        path="/a", limits=["memory.limit_in_bytes 209715200"]
    )
    write(tmp_path / "a", **{"memory.limit_in_bytes": "9223372036854771712\n"})
    assert cgroups.limits("4:cpu,memory:/a\n", table) == Cgroup()


def test_the_note() -> None:
    process = two.process(cgroups=[LIMITED])
    (note,) = around.notes(process, two.destination())
    assert "its cgroup /lim stays here" in note and "memory.max 209715200, pids.max 50" in note
    (note,) = around.notes(process, two.destination(cgroup=Cgroup()))
    assert note.endswith("without these")
    (note,) = around.notes(process, two.destination(cgroup=Cgroup(path="/x", limits=["pids.max 9"])))
    assert note.endswith("under pids.max 9")


def test_the_same_limits_there_are_no_news() -> None:
    there = two.destination(cgroup=Cgroup(path="/other", limits=LIMITED.limits))
    assert around.notes(two.process(cgroups=[LIMITED]), there) == []
