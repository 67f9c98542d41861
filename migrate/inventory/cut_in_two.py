"""What of a tree a process that stays holds as well: what that means for both after the move.

What one of the two tells the other through it would never come: pipes, connections, shared memory, eventfds. Where
each goes on with one of its own, as with a timer or with the position in a file, it is a note.
"""

from __future__ import annotations

import contextlib
import socket
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from migrate.inventory import holders, one_opening, outside, proc, reconnections, socket_kinds, uses
from migrate.inventory.described import shown
from migrate.inventory.descriptors import Descriptors
from migrate.inventory.files import Files
from migrate.inventory.holders import Held, Key
from migrate.inventory.outside import Hit, Things
from migrate.pb.session_pb2 import File, Obstacle
from migrate.processes import unix_diag
from tcpcp.errors import KernelError, PermissionDenied
from tcpcp.kernel.pidfd import Lender

#: It keeps what it gives to its services, or they give it to keep, and does nothing with it.
#: Source: man systemd.socket(5); man systemd.service(5), FileDescriptorStoreMax=.
_KEEPER = "systemd"
_MOST_NAMED = 3
_OF_ONE_KIND = frozenset({"pipe-outside", "socket-outside", "listener-outside", "eventfd-outside"})
_DATAGRAMS = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def look(
    tables: Descriptors, files: Files, inside: Collection[int], bystanders: Collection[int] = ()
) -> list[Obstacle]:
    """Look at the other processes of this host. Of files that the tree and they write, *files* learns who.

    :param inside: PIDs of the tree.
    :param bystanders: processes that were looked at when the tree was checked. They could hold something of it
        since only if it was sent to them, or if it has a name; only named pipes are looked for again.
    :raises KernelError, PermissionDenied: the kernel does not let us.
    """
    things = Things(tables.tables, tables.files, files.shared, tables.terminals_by_name())
    hits = [*things.hits({*inside, *bystanders})]
    if bystanders and tables.files.fifos:
        hits += Things({}, tables.files.named_pipes(), (), {}).hits(inside)
    hits = outside.staying(hits, inside, outside.SHORT_MOMENT_S if bystanders else outside.MOMENT_S)
    return list(_Judge(things, tables, files).of(hits))


class _Judge:
    def __init__(self, things: Things, tables: Descriptors, files: Files) -> None:
        self._things, self._tables, self._files = things, tables, files

    def of(self, hits: Iterable[Hit]) -> Iterator[Obstacle]:
        same: defaultdict[Held, list[Hit]] = defaultdict(list)
        for one in hits:
            same[one.ours].append(one)
        with Lender() as lender:
            for ours, several in same.items():
                if others := [one for one in several if not _only_keeps(one.theirs.pid)]:
                    yield from self._one(lender, ours, others)
                else:
                    yield _obstacle("descriptor-outside", ours, several)

    def _one(self, lender: Lender, ours: Held, hits: list[Hit]) -> Iterator[Obstacle]:
        key, target = hits[0].key, ours.target
        if key is not None:
            yield from self._file(key, ours, hits)
        elif target.startswith("pipe:"):
            # What has only one end in the tree is told as that.
            if self._tables.is_whole(target):
                yield _obstacle("pipe-outside", ours, hits)
        elif target.startswith("socket:"):
            if code := self._socket(lender, ours):
                yield _obstacle(code, ours, hits)
        elif target == "anon_inode:[eventfd]":
            yield _obstacle("eventfd-outside", ours, hits)
        else:
            code = "descriptor-outside" if target.startswith("anon_inode:") else "terminal-outside"
            yield _obstacle(code, ours, hits)

    def _socket(self, lender: Lender, ours: Held) -> str:
        """On a listener, or a datagram socket, others come to either; "": both only send."""
        with contextlib.suppress(KernelError, PermissionDenied), lender.borrow(ours.pid, ours.fd) as sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return "listener-outside"
            if sock.type == socket.SOCK_DGRAM and sock.family in _DATAGRAMS:
                if not socket_kinds.has_peer(sock):
                    return "listener-outside" if socket_kinds.has_name(sock) else ""
                if sock.family == socket.AF_UNIX and self._peer_stays(ours.target):
                    return ""
            return (
                "" if sock.family == socket.AF_UNIX and _is_of_the_journal(ours.target) else "socket-outside"
            )
        return ""  # closed since

    def _peer_stays(self, target: str) -> bool:
        """Whether it sends to somebody else, as to a log."""
        row = unix_diag.sockets().get(int(target.removeprefix("socket:[")[:-1]))
        return row is not None and not self._tables.holds(f"socket:[{row.peer}]")

    def _file(self, key: Key, ours: Held, hits: list[Hit]) -> Iterator[Obstacle]:
        path = uses.path(ours)
        inside = [*self._things.files.get(key, ()), *self._mapping(key)]
        reads, writes = uses.of(inside)
        deleted = outside.is_deleted(ours, path)
        writers = [one for one in hits if uses.of([one.theirs])[1]]
        if stat.S_ISFIFO(uses.mode(ours)):
            yield _obstacle("fifo-outside", ours, hits, path)
        elif uses.are_of_memory(path, inside, deleted=deleted):
            if (writes or writers) and not uses.is_sealed(ours):
                yield _obstacle("memory-outside", ours, hits, path)
        elif reads and writes and writers and deleted:
            yield _obstacle("memory-outside", ours, writers, path)
        else:
            if reads and writes and writers:
                self._add_writers(key, list(_names(writers)))
            yield from self._beside(key, hits, writers, path, told=reads and writes)

    def _add_writers(self, key: Key, names: list[str]) -> None:
        """Say of the file who writes it beside the tree."""
        for file in self._files.found:
            if (file.device, file.inode) == key and file.use in (File.OPEN, File.MAPPED):
                file.writers.extend(name for name in names if name not in file.writers)

    def _mapping(self, key: Key) -> Iterator[Held]:
        if key in self._things.mapped:
            yield self._things.mapped[key]

    def _beside(
        self, key: Key, hits: list[Hit], writers: list[Hit], path: str, *, told: bool
    ) -> Iterator[Obstacle]:
        """Notes: one position for two, as of the log that a shell has opened; or others write what is read here."""
        theirs = {one.theirs: one for one in hits if one.theirs.fd >= 0}
        same = list(one_opening.pairs(self._things.files.get(key, ()), theirs))
        for ours, other in same[:1]:
            yield _obstacle("offset-outside", ours, [theirs[other]], path)
        apart = [one for one in writers if one.theirs not in {other for _, other in same}]
        if apart and not told:
            yield _obstacle("writer-outside", apart[0].ours, apart, path)


def _is_of_the_journal(target: str) -> bool:
    """Whether it is a stream of lines to journald: whoever has it only sends."""
    table, inode = unix_diag.sockets(), int(target.removeprefix("socket:[")[:-1])
    return inode in table and reconnections.is_journal(reconnections.reached(table, inode))


def _only_keeps(pid: int) -> bool:
    with proc.passing_over():
        return proc.stat(pid).comm == _KEEPER
    return False


def _names(hits: Iterable[Hit]) -> Iterator[str]:
    for pid in sorted({one.theirs.pid for one in hits}):
        with proc.passing_over():
            yield holders.named(pid)


def _obstacle(code: str, ours: Held, hits: list[Hit], path: str = "") -> Obstacle:
    """Who else holds it; and what it is, by its path or kind, where the code does not say that."""
    kind = shown(path) or ours.target.removeprefix("anon_inode:").partition(":")[0].strip("[]")
    names = list(_names(hits))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    what = ", ".join([*([] if code in _OF_ONE_KIND else [kind]), *names[:_MOST_NAMED]]) + more
    return Obstacle(code=code, pid=ours.pid, fd=None if ours.fd < 0 else ours.fd, what=what)
