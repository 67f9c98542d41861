"""A connection within a running tree of which one end was closed while the ends were looked at. Pure.

What is left of it looks like a connection to a process that is not moved. It ends as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from migrate.pb.session_pb2 import TcpSocket
from tcpcp.kernel import diag
from tcpcp.record.addresses import plain


def left_out(found: list[TcpSocket], held: Iterable[diag.Entry]) -> list[TcpSocket]:
    """Those of *found* that are not the other end of one that is missing among them.

    :param held: what the tree had a moment before.
    """
    there = {one.inode for one in found}
    ended = {
        (plain(one.local_ip), one.local_port, plain(one.peer_ip), one.peer_port)
        for one in held
        if one.inode not in there
    }
    return [one for one in found if (one.peer_ip, one.peer_port, one.local_ip, one.local_port) not in ended]
