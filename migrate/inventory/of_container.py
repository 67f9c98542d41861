"""What the tree of a container holds: as of any process, but for what its runtime sees to.

It has namespaces of its own, and what it has open is found in its own mounts, which are made again by the runtime
and CRIU: whether its files are there is a question about its bundle, which goes along as a whole. What CRIU cannot
dump of its sockets, descriptors and tasks it cannot dump in a container either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from migrate.inventory import of_process
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
    for one in obstacles:
        own = one.code == _NAMESPACE and one.pid == root_pid and one.what not in ("net", "user")
        if one.code not in _OF_PATHS and not own:
            yield one


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


def _on_host(files: Sequence[File], root: str) -> frozenset[str]:
    return frozenset(f"{root}{one.path}" for one in files)
