"""What the tree of a container holds: as of any process, but for what its runtime sees to.

It has namespaces of its own, and what it has open is found in its own mounts, which are made again by the runtime
and CRIU: whether its files are there is a question about its bundle, which goes along as a whole. What CRIU cannot
dump of its sockets, descriptors and tasks it cannot dump in a container either.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

from migrate.inventory import of_process, proc
from migrate.inventory.open_files import Again
from migrate.pb.session_pb2 import File, Obstacle, ProcessInventory, TakenName

#: Said of paths, as they are seen from our mounts: CRIU looks at them in the container's.
_OF_PATHS = frozenset(
    {"hidden-file", "foreign-mount", "foreign-place", "deleted-directory", "renamed-file", "proc-directory"}
)
#: Those of the container's root are its own, which its configuration names.
_NAMESPACE = "namespace"
#: Names that are looked up in files.
_NAMES_OF_FILES = frozenset({TakenName.PATH, TakenName.RECEIVER, TakenName.TERMINAL})


def process(root_pid: int) -> ProcessInventory:
    """As :func:`migrate.inventory.process`, of the container whose first process is *root_pid*.

    The calling thread is in its network namespace.
    """
    found = of_process.process(root_pid)
    obstacles = list(of_it(root_pid, found.obstacles))
    names = [one for one in found.names if one.kind not in _NAMES_OF_FILES]
    for field in ("obstacles", "names", "files", "needed_pids", "cgroups"):
        found.ClearField(field)
    found.obstacles.extend(obstacles)
    found.names.extend(names)
    return found


def of_it(root_pid: int, obstacles: Iterable[Obstacle]) -> Iterable[Obstacle]:
    """Those of *obstacles* that stand in the way of moving the container of *root_pid*, too.

    A network namespace that is not ours stands in the way: the caller would look at other sockets than its.
    """
    streams = _streams(root_pid)
    for one in obstacles:
        if one.code.startswith("pipe-") and _is_one(one, streams):
            continue
        own = one.code == _NAMESPACE and one.pid == root_pid and one.what not in ("net", "user")
        if one.code not in _OF_PATHS and not own:
            yield one


def _streams(root_pid: int) -> frozenset[str]:
    """The pipes to conmon, which its runtime makes anew to the one there: the container's standard streams."""
    with contextlib.suppress(OSError, ProcessLookupError):
        if proc.stat(proc.stat(root_pid).ppid).comm == "conmon":
            return frozenset(os.readlink(f"/proc/{root_pid}/fd/{number}") for number in (1, 2))  # noqa: PTH115
    return frozenset()


def _is_one(obstacle: Obstacle, streams: frozenset[str]) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{obstacle.pid}/fd/{obstacle.fd}") in streams  # noqa: PTH115
    return False


def again(root_pid: int, found: Again, root: str) -> Again:
    """What was found when the frozen tree was looked at once more, likewise.

    :param root: where the container's root file system is, as this host sees it.
    """
    mapped = [one for one in found.files if one.mapped_shared]
    return Again(
        [],
        {},
        list(of_it(root_pid, found.obstacles)),
        found.options,
        (),
        {},
        found.expired,
        _on_host(mapped, root),
    )


def mapped(pids: Iterable[int], root: str) -> frozenset[str]:
    """Files, by their paths on this host, that its processes *pids* write through shared memory now."""
    found = set()
    for pid in pids:
        with proc.passing_over():
            found |= {f"{root}{one.path}" for one in proc.maps(pid) if one.writes_file}
    return frozenset(found)


def _on_host(files: Sequence[File], root: str) -> frozenset[str]:
    return frozenset(f"{root}{one.path}" for one in files)
