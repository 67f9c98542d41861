"""A connection within a running tree that began, or ended, while its two ends were looked at. Pure.

What was seen of it looks like a connection to a process that is not moved. The descriptors are read process by
process, then the kernel's table once, then each descriptor again. So an end is missed that was opened after its
process had been read, or closed before the table was: there is a second look at those of which one is missed.
Left open: an end that is on its way from one process of the tree to another, by SCM_RIGHTS, in both of the looks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from migrate.pb.session_pb2 import Obstacle, TcpSocket
from tcpcp.kernel import diag
from tcpcp.record.addresses import plain

_Ends = tuple[bytes, int, bytes, int]


def left_out(found: list[TcpSocket], held: Iterable[diag.Entry]) -> list[TcpSocket]:
    """Those of *found* that are not the other end of one that is missing among them.

    :param held: what the tree had a moment before.
    """
    there = {one.inode for one in found}
    ended = {_ends(one) for one in held if one.inode not in there}
    return [one for one in found if _others_ends(one) not in ended]


def in_question(found: list[TcpSocket], table: Iterable[diag.Entry]) -> dict[int, int]:
    """Inodes of those of *found* whose other end is on this host and was not found in the tree -> that end's.

    :param table: all of the host.
    """
    inside = {(one.local_ip, one.local_port, one.peer_ip, one.peer_port) for one in found}
    wanted = {ends: one.inode for one in found if (ends := _others_ends(one)) not in inside and one.peer_port}
    return {wanted[ends]: one.inode for one in table if (ends := _ends(one)) in wanted}


def settled(
    found: list[TcpSocket], questioned: dict[int, int], held: Collection[int], now: Iterable[diag.Entry]
) -> list[TcpSocket]:
    """Those of *found* that were no question, or still are connections to somebody else, in their state now.

    :param questioned: what :func:`in_question` said.
    :param held: inodes of all sockets that the tree has, read after that. :param now: the table, read after that.
    """
    states = {entry.inode: entry.state for entry in now}
    inside = {one for one, other in questioned.items() if one not in held or other in held}
    for one in found:
        if one.inode in questioned:
            one.state = states.get(one.inode, one.state)
    return [one for one in found if one.inode not in inside]


def inside(apart: Iterable[tuple[int, int, Obstacle]], held: Collection[int]) -> list[Obstacle]:
    """What was said of unix sockets of which both ends are in the tree, or that are closed by now.

    :param apart: inodes of sockets and of their other ends, which seemed to be outside. :param held: as above.
    """
    return [one for own, other, one in apart if own not in held or other in held]


def _ends(entry: diag.Entry) -> _Ends:
    return plain(entry.local_ip), entry.local_port, plain(entry.peer_ip), entry.peer_port


def _others_ends(one: TcpSocket) -> _Ends:
    return one.peer_ip, one.peer_port, one.local_ip, one.local_port
