"""What is found out about the sockets of a tree, as it is put together."""

from __future__ import annotations

from dataclasses import dataclass, field

from migrate.inventory import multicast
from migrate.pb.session_pb2 import Obstacle, Reconnection, TakenName, TcpSocket
from tcpcp.criu.tree import HeldSocket


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


def obstacle(code: str, held: HeldSocket, what: str) -> Obstacle:
    """What stands in the way of moving a socket, by the first who has it."""
    pid, fd = held.holders[0]
    return Obstacle(code=code, pid=pid, fd=fd, what=what)
