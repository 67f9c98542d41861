"""A socket of the kernel's table of TCP sockets as a message."""

from __future__ import annotations

import socket

from migrate.pb.session_pb2 import TcpSocket
from tcpcp.kernel import diag
from tcpcp.record import addresses
from tcpcp.record.ici import State


def message(entry: diag.Entry) -> TcpSocket:
    """Return what the kernel's table says about one socket; addresses IPv4-mapped no more."""
    return TcpSocket(
        inode=entry.inode,
        state=entry.state,
        local_ip=addresses.plain(entry.local_ip),
        local_port=entry.local_port,
        peer_ip=addresses.plain(entry.peer_ip),
        peer_port=entry.peer_port,
        congestion=entry.congestion,
        ipv6_socket=entry.family == socket.AF_INET6,
        ipv6_only=entry.v6only,
        device=_device(entry.interface),
        backlog=entry.send_queue if entry.state == State.LISTEN else 0,
    )


def _device(index: int) -> str:
    if not index:
        return ""
    try:
        name = socket.if_indextoname(index)
        name.encode()  # to the kernel it is any bytes
    except (OSError, UnicodeEncodeError):
        return f"interface {index}"
    return name
