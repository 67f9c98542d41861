"""The limits that cgroups set for a process: they hold where it is, and do not move with it.

The processors that it may use are told elsewhere (:mod:`migrate.processes.surroundings`).

Source: Documentation/admin-guide/cgroup-v2.rst, and cgroup-v1/; man cgroups(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from migrate.inventory import proc
from migrate.pb.session_pb2 import Cgroup
from migrate.processes import mounts
from migrate.processes.mounts import Mount

#: File -> what is in it where nothing is limited, of version 2 and then of version 1.
_UNLIMITED = {
    "memory.max": "max",
    "memory.high": "max",
    "memory.swap.max": "max",
    "memory.low": "0",
    "memory.min": "0",
    "pids.max": "max",
    "cpu.max": r"max \d+",
    "cpu.weight": "100",
    "io.max": "",
    "io.weight": "default 100",
    "memory.limit_in_bytes": r"9223372036854\d{6}",
    "cpu.cfs_quota_us": "-1",
    "cpu.shares": "1024",
}


def of(pid: int) -> Cgroup:
    """The limits for *pid*, and the cgroup that sets them; an empty one where none does.

    :raises Gone: it has ended.
    """
    return limits(proc.text(pid, "cgroup"), mounts.here())


def of_tree(pids: Iterable[int]) -> list[Cgroup]:
    """Those of *pids* that have limits, each once."""
    found: dict[str, Cgroup] = {}
    for pid in pids:
        with contextlib.suppress(proc.Gone):
            one = of(pid)
            found.setdefault(one.path, one)
    return [one for one in found.values() if one.limits]


def limits(cgroups: str, mounted: Sequence[Mount]) -> Cgroup:
    """The same, by the content of /proc/PID/cgroup and what is mounted."""
    found: dict[str, str] = {}
    paths = []
    for line in cgroups.split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        place = _place(controllers if number != "0" else "", mounted)
        if place is None or not path.startswith("/") or path.startswith("/.."):
            continue  # that of a cgroup namespace around ours
        more = {name: value for name, value in _set(place, path) if name not in found}
        paths += [path] if more else []
        found |= more
    return Cgroup(path=next(iter(paths), ""), limits=[f"{name} {value}" for name, value in found.items()])


def _set(place: Path, path: str) -> Iterator[tuple[str, str]]:
    """What is set in the cgroup at *path*; else in one above it."""
    told = set()
    for directory in (place / path[1:], *(place / path[1:]).parents):
        if directory == place:
            return  # the root has no limits
        for name, none in _UNLIMITED.items():
            value = _read(directory / name)
            if value is not None and name not in told and not re.fullmatch(none, value):
                told.add(name)
                yield name, value


def _read(file: Path) -> str | None:
    try:
        return " ".join(file.read_text(errors="replace").split())
    except OSError:
        return None


def _place(controllers: str, mounted: Sequence[Mount]) -> Path | None:
    """Where the hierarchy with *controllers*, "" for that of version 2, is mounted as a whole."""
    kind, wanted = "cgroup" if controllers else "cgroup2", {*controllers.split(",")} - {""}
    found = (one for one in mounted if one.kind == kind and one.root == "/" and wanted <= {*one.more})
    return next((Path(one.place) for one in found), None)
