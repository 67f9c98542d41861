"""The sockets of a process: its TCP sockets, and those of other kinds that cannot be moved."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from migrate.inventory import (
    ended_meanwhile,
    lent,
    momentary,
    multicast,
    names,
    nowhere,
    peer_user,
    ports,
    proc,
    reconnections,
    socket_filters,
    socket_kinds,
    tcp_row,
    unix_names,
    unix_queues,
    untold,
)
from migrate.pb.session_pb2 import Obstacle, Reconnection, TakenName, TcpSocket
from migrate.processes import unix_diag
from tcpcp.criu import tree
from tcpcp.criu.tree import HeldSocket
from tcpcp.kernel import diag
from tcpcp.kernel.pidfd import Lender
from tcpcp.record.ici import State


@dataclass(slots=True)
class Sockets:
    """What was found.

    :ivar tcp: TCP sockets that have at least a local port.
    :ivar obstacles: sockets that cannot be moved, of any other kind.
    :ivar names: unix sockets with a name, and UDP sockets with a port, each name once.
    :ivar other_addresses: local addresses of UDP and raw sockets, other than wildcards.
    :ivar groups: multicast groups that this host is in.
    :ivar reconnections: of these, those that can be made anew.
    :ivar nowhere: IPv4 addresses that this host has not, at which sockets wait; perhaps "" for others.
    :ivar begun: TCP sockets that were in no table, or in whose place another one is by now.
    :ivar apart: inodes of unix sockets and of their other ends that seem to be outside, and what was said of it.
    """

    tcp: list[TcpSocket] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)
    names: list[TakenName] = field(default_factory=list)
    other_addresses: list[str] = field(default_factory=list)
    seen: set[tuple[str, int]] = field(default_factory=set)
    groups: list[multicast.Group] = field(default_factory=list)
    apart: list[tuple[int, int, Obstacle]] = field(default_factory=list)
    begun: list[HeldSocket] = field(default_factory=list)
    reconnections: list[Reconnection] = field(default_factory=list)
    nowhere: set[str] = field(default_factory=set)


def collect(held: list[HeldSocket], pids: Iterable[int] = ()) -> Sockets:
    """Look at every socket of *held*, through the kernel's tables and borrowed descriptors.

    Nothing changes. A socket that is closed meanwhile is left out.

    :param pids: the tree, for a second look at connections that began or ended meanwhile.
    :raises KernelError, PermissionDenied: the kernel's tables or descriptors cannot be read.
    """
    found = Sockets()
    if not held:
        return found
    entries = [*diag.tcp(details=True)]
    table = {entry.inode: entry for entry in entries}
    others = [one for one in held if one.inode not in table]
    with Lender() as lender:
        for one in held:
            if one.inode in table:
                with lent.unless_closed(one, found.begun):
                    found.tcp.append(_tcp(lender, one, table[one.inode], found.nowhere))
        _collect_others(lender, others, {one.inode for one in held}, found, still=False)
        _look_at_begun(lender, found)
    pids = [*pids]
    _look_again_at_peers(pids, found)
    found.tcp = ended_meanwhile.left_out(found.tcp, [table[one.inode] for one in held if one.inode in table])
    if questioned := ended_meanwhile.in_question(found.tcp, entries):
        inodes = {one.inode for one in tree.sockets_now(proc.grown(pids))}
        found.tcp = ended_meanwhile.settled(found.tcp, questioned, inodes, diag.tcp())
    return found


def again(others: list[HeldSocket], inside: set[int]) -> Sockets:
    """Look at *others*, which are no TCP sockets with a port, once more; the tree is frozen.

    :param inside: inodes of all sockets of the tree.
    :raises KernelError, PermissionDenied: as :func:`collect`.
    """
    found = Sockets()
    with Lender() as lender:
        _collect_others(lender, others, inside, found, still=True)
    return found


def _look_again_at_peers(pids: list[int], found: Sockets) -> None:
    """Leave out what has been closed since, and whose other end is in the tree: a child was made meanwhile."""
    if found.apart and pids:
        inside = ended_meanwhile.inside(
            found.apart, {one.inode for one in tree.sockets_now(proc.grown(pids))}
        )
        found.obstacles = [one for one in found.obstacles if one not in inside]
        apart = [(one.pid, one.fd) for _, _, one in found.apart if one not in inside]
        found.reconnections = reconnections.left(found.reconnections, apart)


def _look_at_begun(lender: Lender, found: Sockets) -> None:
    """Add connections that were opened while the table was read: as long as they are borrowed they stay in it."""
    known = {one.inode for one in found.tcp}
    begun, found.begun = found.begun, []
    for one in begun:
        with lent.unless_closed(one, found.begun), lender.borrow(*one.holders[0]) as borrowed:
            if not socket_kinds.is_tcp(borrowed):
                continue
            entry = diag.one(borrowed)
            if entry.inode not in known:
                known.add(entry.inode)
                found.tcp.append(_tcp(lender, HeldSocket(entry.inode, one.holders), entry, found.nowhere))


def _tcp(lender: Lender, held: HeldSocket, entry: diag.Entry, nowhere_at: set[str]) -> TcpSocket:
    found = tcp_row.message(entry)
    found.pid, found.fd = held.holders[0]
    if entry.ulp == "mptcp":
        found.problem = f"{ports.name(found)}: Multipath TCP refuses repair mode"
    elif entry.md5:
        found.problem = f"{ports.name(found)}: TCP-MD5, whose keys would be lost"
    else:
        with lent.borrowed(lender, held) as borrowed:
            found.problem = lent.problem(borrowed, entry.state)
            if not ports.is_connection(found) and nowhere.is_bound(borrowed):
                found.nowhere = True
                nowhere_at.add(nowhere.of_ipv4(borrowed))
            if socket_filters.is_unreadable(borrowed):
                found.problem = (
                    f"{ports.name(found)} has an eBPF filter (SO_ATTACH_BPF), which nobody can read"
                )
            if entry.state != State.LISTEN and not found.problem and (lost := untold.problem(borrowed)):
                found.problem = f"{ports.name(found)} has {lost}"
    return found


def _collect_others(
    lender: Lender, others: list[HeldSocket], inside: set[int], found: Sockets, *, still: bool
) -> None:
    unix = unix_diag.sockets() if others else {}
    cookie = socket_kinds.netns_cookie()
    found.groups = multicast.groups() if others else []
    for one in others:
        with lent.unless_closed(one, found.begun):
            if one.inode in unix:
                _unix(one, unix, inside, found)
                _made_anew(lender, one, unix, found)
                if count := unix_queues.in_flight(*one.holders[0]):
                    found.obstacles.append(_obstacle("in-flight", one, count))
                _asked(lender, one, found)
                _waiting(lender, one, unix[one.inode], found, still=still)
                _name_of(lender, one, unix[one.inode], found)
            else:
                # A kind may show no more than that it is a socket.
                with socket_kinds.nameless(found.obstacles, *one.holders[0]):
                    _other(lender, one, cookie, found)


def _unix(held: HeldSocket, table: dict[int, unix_diag.UnixSocket], inside: set[int], found: Sockets) -> None:
    """Report a connection to a socket that stays here, unless another one can be had by its name over there."""
    peer = table[held.inode].peer
    if peer and peer not in inside:
        if peer in table and table[peer].peer not in inside and names.receives(table[peer]):
            pid, fd = held.holders[0]
            found.names.append(TakenName(kind=TakenName.RECEIVER, name=table[peer].name, pid=pid, fd=fd))
            return
        name = table[peer].name if peer in table else ""
        found.obstacles.append(_obstacle("unix-outside", held, name or table[held.inode].name))
        found.apart.append((held.inode, peer, found.obstacles[-1]))
    elif table[held.inode].waiting and table[held.inode].unsent:
        found.obstacles.append(_obstacle("unix-unaccepted", held, table[peer].name if peer in table else ""))


def _made_anew(
    lender: Lender, held: HeldSocket, table: dict[int, unix_diag.UnixSocket], found: Sockets
) -> None:
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
            found.obstacles.append(_obstacle("socket-filter", held, ""))
        if who := peer_user.other_than_root(borrowed):
            found.obstacles.append(_obstacle("unix-peer", held, who))


def _waiting(
    lender: Lender, held: HeldSocket, row: unix_diag.UnixSocket, found: Sockets, *, still: bool
) -> None:
    """Report a unix socket in which something waits that would not be read there as it would be here."""
    if not unix_queues.may_lose(row):
        return
    with lent.borrowed(lender, held) as borrowed:
        if row.unread and (code := momentary.of_unix(borrowed)):
            found.obstacles.append(_obstacle(code, held, row.name))
        code, what = unix_queues.lost(borrowed, row, still=still)
        if code:
            found.obstacles.append(_obstacle(code, held, what))


def _name_of(lender: Lender, held: HeldSocket, row: unix_diag.UnixSocket, found: Sockets) -> None:
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
                found.obstacles.append(_obstacle(code, held, what))
    if row.listening:
        for one in found.names:
            if row.name in (one.name, one.bound_name):
                one.backlog = row.unsent


def _other(lender: Lender, held: HeldSocket, cookie: bytes, found: Sockets) -> None:
    """Report a socket in no table: of another kind, of another namespace, or a TCP socket without a port."""
    pid, fd = held.holders[0]
    with lent.borrowed(lender, held) as borrowed:
        # Python asks no AF_VSOCK for one.
        if (its := socket_kinds.netns_cookie(borrowed)) and its != cookie:
            found.obstacles.append(_obstacle("socket-namespace", held, borrowed.family.name))
            return
        kind = socket_kinds.unsupported(borrowed)
        if kind:
            found.obstacles.append(_obstacle("socket-kind", held, kind))
            return
        if socket_filters.is_unreadable(borrowed):
            found.obstacles.append(_obstacle("socket-filter", held, ""))
        if code := momentary.of_other(borrowed):
            found.obstacles.append(_obstacle(code, held, ""))
        if momentary.is_ping(borrowed):
            found.names.append(TakenName(kind=TakenName.PING, pid=pid, fd=fd))
        if kind := socket_kinds.forgetful(borrowed):
            found.obstacles.append(_obstacle("datagrams", held, kind))
        if (bound := names.of_interface(borrowed, pid, fd)) is not None:
            found.names.append(bound)
        if borrowed.family in (socket.AF_INET, socket.AF_INET6):
            if socket_kinds.is_tcp(borrowed) and not lent.is_unconnected(borrowed):
                found.begun.append(held)  # it was not in the table, and is by now, or was for a moment
            elif lent.is_held(held):
                _add_address(borrowed, found)
            if group := multicast.joined(borrowed, found.groups):
                found.obstacles.append(_obstacle("multicast", held, group))
            if socket_kinds.is_tcp(borrowed) and (lost := untold.problem(borrowed)):
                found.obstacles.append(_obstacle("untold", held, lost))
            if (taken := names.of_udp(borrowed, pid, fd)) is not None:
                found.names.append(taken)


def _add_address(sock: socket.socket, found: Sockets) -> None:
    if nowhere.is_bound(sock):
        found.nowhere.add(nowhere.of_ipv4(sock))
        return
    address = sock.getsockname()[0].partition("%")[0].removeprefix("::ffff:")
    if address not in ("0.0.0.0", "::", *found.other_addresses):
        found.other_addresses.append(address)


def _obstacle(code: str, held: HeldSocket, what: str) -> Obstacle:
    pid, fd = held.holders[0]
    return Obstacle(code=code, pid=pid, fd=fd, what=what)
