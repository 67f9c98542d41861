"""Whether the ports of the sockets are free here, just before they are built; the check said so long ago.

A program that has begun to listen since can share the port with ours (SO_REUSEPORT), and would have half of its
clients; without that option CRIU's bind fails. Of UDP ports the one that was bound last gets all with SO_REUSEADDR.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from migrate.criu import udp_ports
from migrate.errors import Taken
from migrate.inventory import holders, names, ports
from migrate.inventory.tcp_row import message
from migrate.pb.session_pb2 import TcpSocket
from tcpcp.errors import KernelError
from tcpcp.kernel import diag
from tcpcp.record.ici import Endpoint, Ici, State


def require(listening: Iterable[Endpoint], icis: Iterable[Ici] = ()) -> None:
    """Make sure that nobody here listens where the tree will, and that its connections find their place.

    :param listening: as :func:`tcpcp.criu.completion.listeners_of_images` has it. :param icis: its connections.
    :raises Taken: somebody does. :raises KernelError: the kernel's table cannot be read.
    """
    claims = ports.Claims(map(_claim, listening))
    for theirs in _listening() if claims else ():
        if claims.clash(theirs):
            held = holders.of_sockets({theirs.inode}).get(theirs.inode)
            who = held.who if held else "a socket of another namespace"
            text = f"port {theirs.local_port} is taken by {who} on {ports.name(theirs)}, since the check"
            raise Taken(
                text, hint=f"End what uses it there; ss -tlnp 'sport = :{theirs.local_port}' shows it."
            )
    _make_room(icis)


def require_udp(images: Path) -> None:
    """Make sure that nobody here has a UDP port to which CRIU will bind a socket of *images*.

    :raises Taken: somebody does. :raises KernelError: the kernel's table cannot be read.
    :raises ProtocolError: the image is not CRIU's.
    """
    if contested := names.contested(udp_ports.of_images(images)):
        for one in names.taken(contested):
            who, where = one.holder or "a socket of another namespace", ports.text(one.ip, one.port)
            text = (
                f"UDP port {one.port}, which the process has on {where}, is taken by {who}, since the check"
            )
            raise Taken(text, hint=f"End what uses it there; ss -uanp 'sport = :{one.port}' shows it.")


def _make_room(icis: Iterable[Ici]) -> None:
    """Have the kernel forget connections that have ended here (TIME_WAIT) and had the ends of those that come.

    The process's own has begun since, with the same client and the same port. With timestamps connect() takes the
    place by itself (net/ipv4/tcp_ipv4.c tcp_twsk_unique()); without them it does not.
    """
    wanted = [_place(ici) for ici in icis if ici.timestamp is None]
    with contextlib.suppress(KernelError):
        for number, ended in diag.ended(wanted):
            with contextlib.suppress(KernelError):
                diag.forget(wanted[number], ended)


def _place(ici: Ici) -> diag.Wanted:
    """Which one the kernel is asked about."""
    interface = socket.if_nametoindex(ici.device) if ici.device else 0
    return ((ici.local.packed, ici.local.port), (ici.peer.packed, ici.peer.port)), interface


def _claim(one: Endpoint) -> TcpSocket:
    """One that takes IPv4 connections too is there for both families."""
    return TcpSocket(local_ip=one.packed, local_port=one.port, state=State.LISTEN, ipv6_only=True)


def _listening() -> Iterator[TcpSocket]:
    """Those of this host, but not those of one interface: an endpoint does not say which is its own."""
    entries = (one for one in diag.tcp(states=1 << State.LISTEN) if not one.interface)
    return map(message, entries)
