"""What a unit of systemd is whose main process is to be moved: its properties, its files, who is in its cgroup."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from migrate.errors import MigrateError
from migrate.inventory import holders, of_process, proc
from migrate.pb.session_pb2 import Obstacle, ProcessInventory, Unit
from migrate.processes import freezer, systemd

#: With these systemd gives a service namespaces of its own, or they need such. Source: man systemd.exec(5).
SANDBOX = (
    *("PrivateTmp", "PrivateDevices", "PrivateNetwork", "PrivateUsers", "PrivateMounts", "PrivateIPC"),
    *("PrivatePIDs", "ProtectSystem", "ProtectHome", "ProtectHostname", "ProtectKernelTunables"),
    *("ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "ProcSubset"),
    *("DynamicUser", "RootDirectory", "RootImage", "MountAPIVFS", "ReadWritePaths", "ReadOnlyPaths"),
    *("InaccessiblePaths", "ExecPaths", "NoExecPaths", "BindPaths", "BindReadOnlyPaths"),
    *("TemporaryFileSystem", "MountImages", "ExtensionImages", "NetworkNamespacePath", "IPCNamespacePath"),
)
#: What else is judged.
PROPERTIES = (
    *("Type", "Restart", "MainPID", "ActiveState", "SubState", "LoadState", "FreezerState", "Transient"),
    *("TriggeredBy", "Delegate", "PIDFile", "OnSuccess", "UpheldBy", "PAMName", "BusName", "ControlGroup"),
)
#: Of a list or a mode: what it is when it was not said.
_UNSAID = frozenset({"", "no", "default", "all", "infinity"})


def properties(unit: str) -> dict[str, str]:
    """Those of *unit* that are judged, of :data:`SANDBOX` those that are set.

    :raises MigrateError: systemd does not answer.
    """
    found = systemd.show(unit, (*PROPERTIES, *SANDBOX))
    return {name: value for name, value in found.items() if name in PROPERTIES or value not in _UNSAID}


def digest(unit: str) -> bytes:
    """Of what its files say, to be compared. :raises MigrateError: systemd does not answer."""
    return hashlib.sha256("\n".join(systemd.files(unit)).encode()).digest()


def process(unit: str, root_pid: int) -> ProcessInventory:
    """As :func:`migrate.inventory.process`, of the main process of *unit*.

    :raises MigrateError: it cannot be looked at.
    """
    found = of_process.process(root_pid)
    said = found.unit
    said.name = unit
    said.properties.update(properties(unit))
    said.files = digest(unit)
    said.streams.update(streams(root_pid))
    inside = {task.pid for task in found.tasks}
    said.others.extend(_beside(cgroup(said), inside))
    said.namespaces.extend(sorted({one.what for one in found.obstacles if one.code == "namespace"}))
    _numbered(said)
    leave_out(found)
    return found


def cgroup(said: Unit) -> Path:
    """The directory of its cgroup. :raises MigrateError: it is not to be seen."""
    try:
        mounted = freezer.mount_point()
    except freezer.Unavailable as error:
        hint = "Boot this host with systemd.unified_cgroup_hierarchy=1."
        raise MigrateError(f"the cgroup of {said.name} cannot be looked at: {error}", hint=hint) from error
    found = mounted.place / said.properties["ControlGroup"].removeprefix(mounted.root).lstrip("/")
    if not (found / "cgroup.freeze").exists():
        text = f"{said.name} has no cgroup of version 2 at {found}"
        raise MigrateError(text, hint="Boot this host with systemd.unified_cgroup_hierarchy=1.")
    return found


def streams(root_pid: int) -> dict[int, int]:
    """Of the standard streams of a service those that are sockets: inode, and number."""
    found = {}
    for number in (2, 1):
        with proc.passing_over():
            kind, _, inode = proc.link(root_pid, f"fd/{number}").partition(":[")
            if kind == "socket":
                found[int(inode.rstrip("]"))] = number
    return found


def but_streams(known: Collection[int], obstacles: Iterable[Obstacle]) -> Iterator[Obstacle]:
    """*obstacles* without that the standard streams, sockets with the inodes *known*, lead to the journal."""
    for one in obstacles:
        if not (_is_of_journal(one) and _inode(one) in known):
            yield one


def _is_of_journal(one: Obstacle) -> bool:
    return one.code == "unix-outside" and one.what == systemd.STREAMS


def _inode(one: Obstacle) -> int:
    with proc.passing_over():
        return proc.inode(one.pid, one.fd)
    return 0


def leave_out(found: ProcessInventory) -> None:
    """Obstacles that are none, or are told by what the unit says: its sandbox by the names of its directives."""
    to_journal = {_inode(one) for one in found.obstacles if _is_of_journal(one)}
    for inode in found.unit.streams.keys() - to_journal:
        del found.unit.streams[inode]
    left = list(but_streams(found.unit.streams, found.obstacles))
    if any(name in SANDBOX for name in found.unit.properties):
        of_mounts = ("namespace", "foreign-mount", "foreign-place", "hidden-file", "socket-namespace")
        left = [one for one in left if not (found.unit.namespaces and one.code in of_mounts)]
    del found.obstacles[:]
    found.obstacles.extend(left)


def _beside(path: Path, inside: Collection[int]) -> Iterator[str]:
    """Who else lives in the unit's cgroup, or below it."""
    for above, _, _ in os.walk(path):
        for pid in sorted(freezer.members([Path(above)]) - {*inside, 0}):
            with proc.passing_over():
                if proc.stat(pid).state not in "ZX":
                    yield holders.named(pid)


def number_file(said: Unit) -> tuple[str, int, int, int]:
    """On the destination: where *said* has its number there (PIDFile=), "" for nowhere; owner, group and mode.

    :raises MigrateError: systemd does not answer.
    """
    path = systemd.show(said.name, ["PIDFile"]).get("PIDFile", "") if said.numbered else ""
    return path, said.uid, said.gid, said.mode


def _numbered(said: Unit) -> None:
    """Whose its PIDFile= is, to be made anew there."""
    path = said.properties.get("PIDFile", "")
    try:
        found = os.lstat(path) if path else None
    except OSError:
        found = None
    if found is not None:
        said.numbered, said.uid, said.gid, said.mode = True, found.st_uid, found.st_gid, found.st_mode & 0o777
