"""No other process is at a socket that this one gets or creates, though it has the socket too.

Threads of a process are told apart by :func:`tcpcp.endpoint.holding.claim`, which comes first. Repair mode tells of
nobody: the kernel takes it twice, and both may have looked before.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack

from tcpcp.endpoint import handed_in, holding, socket_ends
from tcpcp.endpoint.held import Holding
from tcpcp.endpoint.preparation import Prepared
from tcpcp.errors import AlreadyGot
from tcpcp.kernel import file_lock, tcp_repair
from tcpcp.record.ici import Ici


def require_isolated_here(held: Sequence[Holding], namespace: int) -> None:
    """Refuse what another process that has the sockets too gets at this moment.

    Each looks after it has isolated, so one of them sees the other; where both do, both refuse.
    """
    if taken := holding.table(namespace).held_elsewhere(holding.flows(held)):
        raise AlreadyGot(f"{taken[0]}: another program that has the socket too is getting it, or has got it")


def require_ended(socks: Sequence[socket.socket], prepared: Sequence[Prepared], stack: ExitStack) -> None:
    """Likewise where the connection has ended: nothing isolates it. It is as it was *prepared* still.

    :param stack: lets them go at its end.
    """
    for sock, one in zip(socks, prepared, strict=True):
        if not one.closed:
            continue
        taken = not _lock(sock, stack) or tcp_repair.get_repair(sock)
        if taken or socket_ends.ends(sock) != (one.local, one.peer, True):
            raise AlreadyGot(f"{one.local} - {one.peer}: another process that has the socket too gets it")


def require_fresh(icis: Sequence[Ici], given: Sequence[socket.socket | None], stack: ExitStack) -> None:
    """Keep *given*, which this thread has claimed, from other processes; they have to be fresh still.

    :param stack: lets them go at its end. :raises AlreadyGot, Unsupported: one of them is another's by now.
    """
    for ici, sock in zip(icis, given, strict=True):
        if sock is None:
            continue
        if not _lock(sock, stack):
            raise AlreadyGot(f"{ici}: another process creates a connection with the socket given")
        handed_in.require_fresh(sock, ici)


def _lock(sock: socket.socket, stack: ExitStack) -> bool:
    taken = file_lock.take(sock)
    if taken:
        stack.callback(file_lock.give_back, sock)
    return taken
