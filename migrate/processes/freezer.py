"""Frozen cgroups: what keeps the tree still until we let it go, whoever of us dies and whatever signal comes.

A SIGSTOP ends with the next SIGCONT, and anybody who may signal the process may send one. A task in a frozen
cgroup (v2) runs no instruction of its own until the cgroup is thawed; only SIGKILL gets through. Each task stays
below the cgroup that it was in: in a child of it, so that accounts, limits and the unit of systemd remain the
same, and nobody sees the unit empty. The way in is taken while the tree runs, which costs no gap. CRIU is not
told: the freeze is written while CRIU holds every task, and takes effect when it lets go.

Source: Documentation/admin-guide/cgroup-v2.rst, "cgroup.freeze"; kernel/cgroup/freezer.c; kernel/signal.c
do_freezer_trap(): a task that its tracer lets go enters the trap before it returns to its program.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from migrate import limits
from migrate.errors import MigrateError
from migrate.processes import identity, mounts
from migrate.processes.identity import Identity
from migrate.processes.mounts import Mount

#: How often a running tree is looked at again for children that were forked while it was moved.
ROUNDS = 20


class Unavailable(Exception):
    """There is no cgroup in which this tree could be frozen; why, as a part of a sentence."""


class Freezer:
    """The cgroups of one migration.

    :param name: what each is called.
    :param about_to_make: told the path of each just before it is made, so that it can be undone.
    :ivar paths: those made, or about to be.
    """

    def __init__(self, name: str, about_to_make: Callable[[Path], None]) -> None:
        self._name, self._about_to_make = name, about_to_make
        self.paths: list[Path] = []

    def enter(self, tasks: Callable[[], Iterable[int]]) -> None:
        """Move the processes of a tree that runs; children that they fork from then on are born there.

        :param tasks: reads the tree.
        :raises Unavailable: it cannot be; all are back where they were.
        """
        try:
            self._gather(tasks)
        except (Unavailable, OSError) as error:
            release(self.paths)
            self.paths.clear()
            raise error if isinstance(error, Unavailable) else Unavailable(str(error)) from error

    def freeze(self, pids: Iterable[int]) -> None:
        """Freeze all of it until :func:`release`, with those that were forked on the way in.

        :param pids: the tree, held by CRIU: the freeze takes effect when CRIU lets go.
        :raises Unavailable: one of them cannot be frozen; the others are.
        """
        freeze_again(self.paths)
        try:
            inside = members(self.paths)
            left = [pid for pid in pids if pid not in inside]
            self._gather(lambda: left)
        except OSError as error:
            raise Unavailable(str(error)) from error
        freeze_again(self.paths)
        if said := problem(self.paths, ()):
            raise Unavailable(said)

    def _gather(self, tasks: Callable[[], Iterable[int]]) -> None:
        root = mount_point()
        for _ in range(ROUNDS):
            outside = [pid for pid in tasks() if self._outside(root, pid)]
            if not outside:
                return
            for pid in outside:
                self._move(root, pid)
        raise Unavailable("the tree forks faster than it can be moved")

    def _outside(self, root: MountPoint, pid: int) -> bool:
        """Whether *pid* runs elsewhere; one that has ended is nowhere."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            return identity.state(pid) not in "ZX" and cgroup_of(root, pid) not in self.paths
        return False

    def _move(self, root: MountPoint, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            home = cgroup_of(root, pid)
            path = home / self._name
            if path not in self.paths:
                _require_domain(home)
                self._about_to_make(path)
                path.mkdir()
                self.paths.append(path)
            (path / "cgroup.procs").write_text(str(pid))


class MountPoint(NamedTuple):
    """Where cgroup v2 is mounted and may be written: *place* shows what is in the hierarchy's directory *root*."""

    place: Path
    root: str


def mount_point() -> MountPoint:
    """Where it is.

    :raises Unavailable: nowhere.
    """
    return mount_point_in(mounts.here())


def mount_point_in(mounted: Iterable[Mount]) -> MountPoint:
    """The same, of what is mounted. On a host with v1 controllers it is often /sys/fs/cgroup/unified.

    In a container it may show a part alone, mounted over the whole, which is not to be seen any more.
    """
    every = list(mounted)
    covered = {(one.parent, one.place) for one in every}
    found = [one for one in every if one.kind == "cgroup2" and (one.number, one.place) not in covered]
    for one in sorted(found, key=lambda one: one.root != "/"):
        if "rw" in one.options:
            return MountPoint(Path(one.place), one.root.rstrip("/"))
    raise Unavailable("cgroup v2 is mounted read-only" if found else "no cgroup v2 is mounted")


def cgroup_of(mounted: MountPoint, pid: int) -> Path:
    """The directory of the cgroup v2 that *pid* is in.

    :raises Unavailable: it is not to be seen there.
    :raises ProcessLookupError, FileNotFoundError: there is no such process.
    """
    for line in Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines():
        if line.startswith("0::/"):
            # It begins with /.. where it is that of a cgroup namespace around ours.
            path = line.removeprefix("0::").rstrip("/")
            if path == mounted.root or path.startswith(f"{mounted.root}/"):
                below = path.removeprefix(mounted.root).strip("/")
                if below.split("/")[0] != ".." and (found := mounted.place / below).is_dir():
                    return found
    raise Unavailable(f"the cgroup of process {pid} is not to be seen from here")


def frozen_by(pid: int) -> Path | None:
    """The cgroup that freezes *pid* now; None when there is none, or none to be seen."""
    with contextlib.suppress(Unavailable, OSError):
        found = cgroup_of(mount_point(), pid)
        return found if is_frozen(found) else None
    return None


def all_named(prefix: str) -> list[Path]:
    """The cgroups whose name begins so, wherever they are; none where there are none to be seen."""
    with contextlib.suppress(Unavailable):
        return sorted(
            Path(above) / name
            for above, names, _ in os.walk(mount_point().place)
            for name in names
            if name.startswith(prefix)
        )
    return []


def is_frozen(path: Path) -> bool:
    """Whether the cgroup is frozen now."""
    with contextlib.suppress(OSError):
        return "frozen 1" in (path / "cgroup.events").read_text().splitlines()
    return False


def members(paths: Iterable[Path]) -> set[int]:
    """The processes that live in these cgroups, as far as these are there."""
    found: set[int] = set()
    for path in paths:
        with contextlib.suppress(OSError):
            found.update(map(int, (path / "cgroup.procs").read_text().split()))
    return found


def those_there(paths: Iterable[Path]) -> list[Path]:
    """Those of *paths* that are cgroups."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            found += [path] if (path / "cgroup.procs").exists() else []
    return found


def problem(paths: Iterable[Path], tasks: Iterable[Identity]) -> str:
    """Why *tasks*, as far as they are alive, are not all frozen in *paths*; "" when they are."""
    paths = list(paths)
    thawed = [path for path in paths if not _frozen(path)]
    if thawed:
        return f"{thawed[0]} was thawed or removed"
    inside = members(paths)
    out = [task[0] for task in tasks if task[0] not in inside and identity.alive(task)]
    return f"{', '.join(map(str, out))} left the frozen cgroup" if out else ""


def _frozen(path: Path) -> bool:
    """Whether it is to be frozen and is: when the last task of it is, which one that dies may delay."""
    deadline = time.monotonic() + limits.CGROUP_FROZEN_S
    with contextlib.suppress(OSError):
        while (path / "cgroup.freeze").read_text().strip() == "1":
            if is_frozen(path):
                return True
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
    return False


def freeze_again(paths: Iterable[Path]) -> None:
    """Freeze those that are still there, as far as possible: :func:`problem` says how it went."""
    for path in paths:
        with contextlib.suppress(OSError):
            (path / "cgroup.freeze").write_text("1")


def release(paths: Iterable[Path]) -> None:
    """Thaw, move what lives there back to where it was, and remove them; those that are gone are done.

    :raises MigrateError: one cannot be removed; what was in it runs.
    """
    there = those_there(paths)
    for path in there:
        (path / "cgroup.freeze").write_text("0")
    for path in there:
        deadline = time.monotonic() + limits.CGROUP_EMPTY_S
        while not _removed(path):
            if time.monotonic() > deadline:
                raise MigrateError(f"the cgroup {path} could not be emptied and removed")
            time.sleep(0.002)


def _removed(path: Path) -> bool:
    """Move back what is in it and remove it, unless something in it is just dying."""
    for pid in members([path]) - {0}:  # 0: of a PID namespace that is not ours
        with contextlib.suppress(ProcessLookupError):
            (path.parent / "cgroup.procs").write_text(str(pid))
    try:
        path.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _require_domain(home: Path) -> None:
    """Where threads of a process are in cgroups of their own, a child cannot take the process."""
    kind = home / "cgroup.type"  # the root has none
    if kind.exists() and kind.read_text().strip() != "domain":
        raise Unavailable(f"the cgroup {home} is {kind.read_text().strip()}")
