"""The sockets of a process: its TCP sockets, and those of other kinds that cannot be moved."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from migrate.inventory import (
    ended_meanwhile,
    lent,
    momentary,
    multicast,
    names,
    nowhere,
    ports,
    proc,
    reconnections,
    socket_filters,
    socket_kinds,
    tcp_row,
    unix_sockets,
    untold,
)
from migrate.inventory.found_sockets import Sockets, obstacle
from migrate.pb.session_pb2 import TakenName, TcpSocket
from migrate.processes import unix_diag
from tcpcp.criu import tree
from tcpcp.criu.tree import HeldSocket
from tcpcp.kernel import diag
from tcpcp.kernel.pidfd import Lender
from tcpcp.record.ici import State


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
                unix_sockets.add(lender, one, unix, inside, found, still=still)
            else:
                # A kind may show no more than that it is a socket.
                with socket_kinds.nameless(found.obstacles, *one.holders[0]):
                    _other(lender, one, cookie, found)


def _other(lender: Lender, held: HeldSocket, cookie: bytes, found: Sockets) -> None:
    """Report a socket in no table: of another kind, of another namespace, or a TCP socket without a port."""
    pid, fd = held.holders[0]
    with lent.borrowed(lender, held) as borrowed:
        # Python asks no AF_VSOCK for one.
        if (its := socket_kinds.netns_cookie(borrowed)) and its != cookie:
            found.obstacles.append(obstacle("socket-namespace", held, borrowed.family.name))
            return
        kind = socket_kinds.unsupported(borrowed)
        if kind:
            found.obstacles.append(obstacle("socket-kind", held, kind))
            return
        if socket_filters.is_unreadable(borrowed):
            found.obstacles.append(obstacle("socket-filter", held, ""))
        if code := momentary.of_other(borrowed):
            found.obstacles.append(obstacle(code, held, ""))
        if momentary.is_ping(borrowed):
            found.names.append(TakenName(kind=TakenName.PING, pid=pid, fd=fd))
        if kind := socket_kinds.forgetful(borrowed):
            found.obstacles.append(obstacle("datagrams", held, kind))
        if (bound := names.of_interface(borrowed, pid, fd)) is not None:
            found.names.append(bound)
        if borrowed.family in (socket.AF_INET, socket.AF_INET6):
            if socket_kinds.is_tcp(borrowed) and not lent.is_unconnected(borrowed):
                found.begun.append(held)  # it was not in the table, and is by now, or was for a moment
            elif lent.is_held(held):
                _add_address(borrowed, found)
            if group := multicast.joined(borrowed, found.groups):
                found.obstacles.append(obstacle("multicast", held, group))
            if socket_kinds.is_tcp(borrowed) and (lost := untold.problem(borrowed)):
                found.obstacles.append(obstacle("untold", held, lost))
            if (taken := names.of_udp(borrowed, pid, fd)) is not None:
                found.names.append(taken)


def _add_address(sock: socket.socket, found: Sockets) -> None:
    if nowhere.is_bound(sock):
        found.nowhere.add(nowhere.of_ipv4(sock))
        return
    address = sock.getsockname()[0].partition("%")[0].removeprefix("::ffff:")
    if address not in ("0.0.0.0", "::", *found.other_addresses):
        found.other_addresses.append(address)
