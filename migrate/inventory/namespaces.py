"""The namespaces of a tree: which ones its tasks are in, and those of which it has descriptors.

CRIU opens a namespace again that is one of the tree's own; it knows no others.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping

from migrate.criu import own_namespace, worker
from migrate.inventory import holders, proc
from migrate.pb.session_pb2 import Obstacle
from migrate.processes import ipc_namespace

#: CRIU restores every tree in a time namespace, so that its clocks go on, and dumps it from there again; of these
#: others it makes one anew for a tree that has its own: with its names, and its System V objects.
_MOVED_WITH_THE_TREE = frozenset({"time", "time_for_children", "ipc", "uts"})
#: So many processes are named.
_NAMED = 5


def expected(root_pid: int) -> dict[str, str]:
    """The namespaces that the root of a tree should be in: ours, but of time, IPC and host names its own, and of
    PIDs and mounts those that an earlier move has given it.

    :raises Gone: it has ended.
    """
    own, root = proc.namespaces(os.getpid()), proc.namespaces(root_pid)
    own |= {kind: name for kind, name in root.items() if kind in _MOVED_WITH_THE_TREE}
    if own["pid"] != root["pid"] and (found := own_namespace.of(root_pid)):
        own |= {**found.names, "pid_for_children": found.names["pid"]}
    return own


def obstacles(root_pid: int, inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield what is in the way of moving the tree *inside* with its own namespaces; who else is in them, for one.

    Every process of this host is asked: not in the freeze.
    """
    yield from _given(root_pid)
    yield from _beside(root_pid, inside)


def _given(root_pid: int) -> Iterator[Obstacle]:
    """Yield what is in the way of moving a tree on with the namespaces that a move has given it.

    Who has joined them would end with the tree, which their init waits for; not what the tree has left there, whose
    parent the init is. And CRIU has to be there, since it works in there.
    """
    if (found := own_namespace.of(root_pid)) is None:
        return
    if (criu := worker.program()) and not own_namespace.sees(found, criu):
        yield Obstacle(code="namespace-mounts", pid=root_pid, what=criu)
    joined = (pid for pid in own_namespace.members(found) if not proc.descends(pid, {found.init}))
    if named := list(_named(joined)):
        yield Obstacle(code="namespace-beside", pid=root_pid, what=", ".join(named[:_NAMED]))


def _beside(root_pid: int, inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield who else is in the tree's own IPC namespace: it would stay, and have a copy of all that is in it."""
    if not ipc_namespace.is_own(root_pid):
        return
    own = proc.link(root_pid, "ns/ipc")
    others = (pid for pid in proc.pids() if _link(pid) == own and not proc.descends(pid, inside))
    if named := list(_named(others)):
        yield Obstacle(code="ipc-beside", pid=root_pid, what=", ".join(named[:_NAMED]))


def _link(pid: int) -> str:
    with proc.passing_over():
        return proc.link(pid, "ns/ipc")
    return ""


def _named(pids: Iterable[int]) -> Iterator[str]:
    for pid in pids:
        with contextlib.suppress(proc.Gone):
            yield holders.named(pid)


def foreign(pid: int, its: Mapping[str, str], wanted: Mapping[str, str]) -> list[Obstacle]:
    """Where *pid*, which is in the namespaces *its*, is in another one than in those of *wanted*."""
    kinds = {kind.removesuffix("_for_children") for kind in its if its[kind] != wanted.get(kind, its[kind])}
    if its.get("time") != its.get("time_for_children", its.get("time")):
        kinds.add("time")  # CRIU dumps one for the tree, and none that only its children would have
    return [Obstacle(code="namespace", pid=pid, what=kind) for kind in sorted(kinds)]


def is_one(target: str) -> bool:
    """Whether a descriptor is of a namespace, by what /proc shows: ``net:[4026531840]``."""
    return target.partition(":[")[0] in proc.NAMESPACES


def opened(files: Iterable[tuple[int, int, str]], inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield those of *files* (process, descriptor, namespace) that are of no task of the tree *inside*."""
    files = list(files)
    own: set[str] = set()
    for pid in inside if files else ():
        with contextlib.suppress(proc.Gone):
            own.update(proc.namespaces(pid).values())
    for pid, fd, target in files:
        if target not in own:
            yield Obstacle(code="namespace-file", pid=pid, fd=fd, what=target)


@functools.cache
def device() -> int:
    """The device number of the file system that namespaces are files of."""
    return os.stat("/proc/self/ns/mnt").st_dev  # noqa: PTH116
