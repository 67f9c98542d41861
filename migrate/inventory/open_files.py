"""A frozen tree, looked at again: what it has opened since, may write, and now has that cannot be moved.

CRIU sees to most of what it cannot dump. What it would forget without a word was looked for when the tree was
checked, and a program may have begun to use it since.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from migrate.inventory import (
    apart,
    begun_anew,
    cramped,
    cut_in_two,
    exit_signals,
    namespaces,
    own_ipc,
    places_only,
    plain_options,
    proc,
    sockets,
    sparse,
    sysv,
)
from migrate.inventory.descriptors import Descriptors
from migrate.inventory.files import Files
from migrate.inventory.proc import Gone
from migrate.pb.session_pb2 import File, Obstacle, Reconnection, Task
from migrate.processes.own_numbers import Numbers
from tcpcp.criu import tree
from tcpcp.errors import KernelError


class Again(NamedTuple):
    """What was found.

    :ivar files: open ones, and mapped ones but those that are known and only read.
    :ivar renamed: paths that are gone, of files that have another name: that one.
    :ivar obstacles: what stands in the way of moving it, beside its TCP connections.
    :ivar deleted: as :attr:`Files.deleted` has them.
    :ivar options: of its sockets that are no TCP sockets, those that CRIU does not know.
    :ivar locks: for :func:`migrate.inventory.waiters.obstacles`, which takes long: none of it is among these.
    :ivar expired: for :func:`migrate.inventory.expired_timers.count_on`.
    :ivar reconnections: connections to unix sockets that stay, which can be made anew.
    :ivar mapped: files that may be written without their times telling, beside those of *files*.
    """

    files: list[File]
    renamed: dict[str, str]
    obstacles: list[Obstacle]
    options: Sequence[plain_options.Held] = ()
    deleted: Sequence[File] = ()
    locks: Mapping[tuple[int, int], Sequence[str]] = MappingProxyType({})
    expired: Sequence[tuple[int, int]] = ()
    mapped: Collection[str] = ()
    reconnections: Sequence[Reconnection] = ()


def again(
    pids: Iterable[int],
    known: Collection[str],
    tcp: Collection[int],
    bystanders: Collection[int] = (),
    numbers: Numbers | None = None,
) -> Again:
    """Look at the tasks *pids*, which are frozen.

    :param known: paths of files that are known.
    :param tcp: inodes of TCP sockets that are known: somebody else looks at them.
    :param bystanders: as :func:`migrate.inventory.cut_in_two.look` has them.
    :param numbers: as they see them; None: as we do.
    :raises KernelError, PermissionDenied: the kernel's tables or descriptors cannot be read.
    """
    files, tables, pids = Files(known), Descriptors(numbers), list(pids)
    for pid in pids:
        try:
            tables.add_process(pid, files)
            files.add_process(pid)
        except Gone:
            continue
    of_files = tables.inside_terminals(files.obstacles)
    held = tree.held_in(tables.tables)
    others = [one for one in held if one.inode not in tcp]
    of_sockets = sockets.again(others, {one.inode for one in held})
    of_others = cut_in_two.look(tables, files, set(pids), bystanders)
    obstacles = [*of_files, *tables.obstacles(set(pids)), *of_others, *of_sockets.obstacles, *_of_tasks(pids)]
    obstacles += places_only.obstacles(tables.tables, sockets=False)
    options = plain_options.read(others)
    return Again(
        files.found,
        files.renamed,
        obstacles,
        options,
        files.deleted,
        files.locks,
        tables.anonymous.expired,
        reconnections=of_sockets.reconnections,
    )


def _of_tasks(pids: list[int]) -> Iterator[Obstacle]:
    yield from sysv.obstacles(pids)
    yield from own_ipc.shared(pids)
    yield from exit_signals.obstacles(pids)
    yield from cramped.obstacles(pids)
    yield from begun_anew.obstacles(pids)
    yield from sparse.obstacles(pids)
    yield from _of_namespaces(pids)
    for pid in pids:
        with contextlib.suppress(KernelError):  # it has ended, which others notice
            yield from apart.of_threads(Task(pid=pid, tids=tree.threads(pid)))


def _of_namespaces(pids: list[int]) -> Iterator[Obstacle]:
    """As when the tree was checked: the root, the first of *pids*, is in ours, and the others are in the root's."""
    with contextlib.suppress(Gone):
        wanted = namespaces.expected(pids[0])
        for pid in pids:
            its = proc.namespaces(pid)
            yield from namespaces.foreign(pid, its, wanted)
            wanted = its if pid == pids[0] else wanted
