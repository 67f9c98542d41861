"""A unix socket of a tree: whom it leads to, what waits in it, and its name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from migrate.inventory import (
    lent,
    momentary,
    names,
    peer_user,
    proc,
    reconnections,
    socket_filters,
    unix_names,
    unix_queues,
)
from migrate.inventory.found_sockets import Sockets, obstacle
from migrate.pb.session_pb2 import TakenName
from migrate.processes.unix_diag import UnixSocket
from tcpcp.criu.tree import HeldSocket
from tcpcp.kernel.pidfd import Lender


def add(
    lender: Lender,
    held: HeldSocket,
    table: Mapping[int, UnixSocket],
    inside: set[int],
    found: Sockets,
    *,
    still: bool,
) -> None:
    """Add to *found* what there is to say of *held*, which is one.

    To be used within :func:`migrate.inventory.lent.unless_closed`.

    :param table: see :func:`migrate.processes.unix_diag.sockets`. :param inside: inodes of all sockets of the tree.
    :param still: whether the tree is frozen.
    :raises KernelError, PermissionDenied: it cannot be borrowed.
    """
    _peer(held, table, inside, found)
    _made_anew(lender, held, table, found)
    if count := unix_queues.in_flight(*held.holders[0]):
        found.obstacles.append(obstacle("in-flight", held, count))
    _asked(lender, held, found)
    _waiting(lender, held, table[held.inode], found, still=still)
    _name_of(lender, held, table[held.inode], found)


def _peer(held: HeldSocket, table: Mapping[int, UnixSocket], inside: set[int], found: Sockets) -> None:
    """Report a connection to a socket that stays here, unless another one can be had by its name over there."""
    peer = table[held.inode].peer
    if peer and peer not in inside:
        if peer in table and table[peer].peer not in inside and names.receives(table[peer]):
            pid, fd = held.holders[0]
            found.names.append(TakenName(kind=TakenName.RECEIVER, name=table[peer].name, pid=pid, fd=fd))
            return
        name = table[peer].name if peer in table else ""
        found.obstacles.append(obstacle("unix-outside", held, name or table[held.inode].name))
        found.apart.append((held.inode, peer, found.obstacles[-1]))
    elif table[held.inode].waiting and table[held.inode].unsent:
        found.obstacles.append(obstacle("unix-unaccepted", held, table[peer].name if peer in table else ""))


def _made_anew(lender: Lender, held: HeldSocket, table: Mapping[int, UnixSocket], found: Sockets) -> None:
    """Add what is needed to make anew a connection to a socket that stays here, if it can be."""
    apart = found.apart and found.apart[-1][0] == held.inode
    if apart and (name := reconnections.reached(table, held.inode)):
        with contextlib.suppress(proc.Gone), lent.borrowed(lender, held) as borrowed:
            found.reconnections.append(reconnections.of_unix(borrowed, held, table, name))


def _asked(lender: Lender, held: HeldSocket, found: Sockets) -> None:
    """Report a filter of a unix socket that cannot be read, and who its other end is, if that is told differently
    after the move."""
    with lent.borrowed(lender, held) as borrowed:
        if socket_filters.is_unreadable(borrowed):
            found.obstacles.append(obstacle("socket-filter", held, ""))
        if who := peer_user.other_than_root(borrowed):
            found.obstacles.append(obstacle("unix-peer", held, who))


def _waiting(lender: Lender, held: HeldSocket, row: UnixSocket, found: Sockets, *, still: bool) -> None:
    """Report a unix socket in which something waits that would not be read there as it would be here."""
    if not unix_queues.may_lose(row):
        return
    with lent.borrowed(lender, held) as borrowed:
        if row.unread and (code := momentary.of_unix(borrowed)):
            found.obstacles.append(obstacle(code, held, row.name))
        code, what = unix_queues.lost(borrowed, row, still=still)
        if code:
            found.obstacles.append(obstacle(code, held, what))


def _name_of(lender: Lender, held: HeldSocket, row: UnixSocket, found: Sockets) -> None:
    """Accepted connections have the name and file of their listener: it is asked for once.

    Two sockets of one name may have two files: one was deleted since, or they were bound in two directories.
    """
    if row.name and (row.name, row.file_inode) not in found.seen:
        found.seen.add((row.name, row.file_inode))
        pid, fd = held.holders[0]
        with lent.borrowed(lender, held) as borrowed:
            if (taken := unix_names.of_unix(borrowed, row.name, pid, fd)) is not None:
                found.names.append(taken)
            code, what = unix_names.obstacle(borrowed, row.name, taken)
            if code:
                found.obstacles.append(obstacle(code, held, what))
    if row.listening:
        for one in found.names:
            if row.name in (one.name, one.bound_name):
                one.backlog = row.unsent
