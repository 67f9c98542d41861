"""The process trees of this host that hold TCP sockets, in every network namespace that one of them is in.

Nothing is held still, and what comes or goes meanwhile may be there or not. Who has a socket is of one tree with
his parent if that has one, too, as the workers of a server are; what a shell has started in between stands alone,
so that not all that was begun in an SSH session is one tree with sshd. Of a container all is one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from migrate.errors import KernelError
from migrate.inventory import holders, ports, proc
from migrate.inventory.tcp_row import message
from migrate.pb.session_pb2 import TcpSocket
from migrate.processes import network
from tcpcp.criu import tree
from tcpcp.kernel import diag

#: It keeps the listeners of the units that it starts.
_INIT = 1
#: Of /proc/PID/status, in kB: what would be carried. Pages of files that are unchanged stay in the files.
_CARRIED = ("RssAnon", "RssShmem", "VmSwap")


@dataclass(frozen=True, slots=True)
class Tree:
    """One of them.

    :ivar sockets: those that listen, are bound or connected, each once.
    """

    root_pid: int
    sockets: list[TcpSocket]


def trees(tops: Collection[int] = ()) -> list[Tree]:
    """All of them, by the PIDs of their roots.

    :param tops: first processes of containers: what is below one belongs to it.
    :raises KernelError: the kernel's table of sockets cannot be read.
    """
    held = _held()
    table = _table(held)
    # A socket of which the kernel's tables do not tell is of another kind.
    having = {pid: found for pid, inodes in held.items() if (found := inodes & table.keys())}
    others = set[int]().union(*(found for pid, found in having.items() if pid != _INIT))
    if not having.get(_INIT, set()) - others:
        having.pop(_INIT, None)
    roots: defaultdict[int, set[int]] = defaultdict(set)
    for pid, found in having.items():
        with proc.passing_over():
            roots[_root(pid, having, tops)] |= found
    return [Tree(root, [table[inode] for inode in sorted(roots[root])]) for root in sorted(roots)]


def memory_bytes(root_pid: int) -> int:
    """How much memory of a tree would be carried; of what has ended meanwhile nothing.

    :raises tcpcp.errors.KernelError: the root has ended.
    """
    found = 0
    for pid in tree.tasks_now(root_pid):
        with proc.passing_over():
            status = proc.status(pid)
            found += sum(int(status.get(name, "0 kB").split()[0]) << 10 for name in _CARRIED)
    return found


def _held() -> dict[int, set[int]]:
    """PID -> inodes of all its sockets, of whatever kind."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    for one in holders.everywhere():
        if one.target.startswith("socket:["):
            found[one.pid].add(int(one.target[8:-1]))
    return found


def _table(pids: Iterable[int]) -> dict[int, TcpSocket]:
    """Inode -> socket, of all namespaces that one of *pids* is in, ours first."""
    namespaces = {os.stat("/proc/thread-self/ns/net").st_ino: ""}  # noqa: PTH116
    for pid in pids:
        with proc.passing_over():
            path = f"/proc/{pid}/ns/net"
            namespaces.setdefault(os.stat(path).st_ino, path)  # noqa: PTH116
    found: dict[int, TcpSocket] = {}
    for path in namespaces.values():
        try:
            with network.within(path):
                found |= {one.inode: one for one in map(message, diag.tcp()) if one.inode and one.local_port}
        except KernelError:
            if not path:
                raise
            continue  # it went with the process
    return found


def _root(pid: int, having: Collection[int], tops: Collection[int]) -> int:
    above = proc.ancestors(pid)
    if inside := [one for one in above if one in tops]:
        return inside[0]
    root, *rest = above
    for parent in rest:
        if parent == _INIT or parent not in having:
            break
        root = parent
    return root


def listening(sockets: Iterable[TcpSocket]) -> list[str]:
    """Where they listen, each place once."""
    return list(dict.fromkeys(ports.name(one) for one in sockets if one.state == ports.LISTEN))


def connections(sockets: Iterable[TcpSocket]) -> list[TcpSocket]:
    """Those that have a peer."""
    return [one for one in sockets if ports.is_connection(one)]


def addresses(sockets: Iterable[TcpSocket]) -> list[str]:
    """The addresses of this host that connections are at, each once."""
    return list(dict.fromkeys(ports.address(one.local_ip) for one in connections(sockets)))
