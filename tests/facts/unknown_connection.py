"""A connection of which one end knows nothing, and whether its other end is told so."""

from __future__ import annotations

import socket

from harness.wait import eventually
from netns import Namespace

from tcpcp.kernel import tcp_repair


def forgotten(peer: Namespace, server: Namespace, address: str) -> socket.socket:
    """The peer's end of a connection that the server, at *address*, had and has no more."""
    with server.entered():
        listener = socket.create_server((address, 80))
    with peer.entered():
        asking = socket.create_connection((address, 80), 10)
    served, _ = listener.accept()
    listener.close()
    tcp_repair.set_repair(served, tcp_repair.ON)
    served.close()
    return asking


def is_reset(connection: socket.socket) -> bool:
    """Whether it was ended by a reset."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    raise AssertionError("the connection ended otherwise")


def sends(connection: socket.socket) -> int:
    """Say something, and wait until it was said again: an answer would have come. :return: how often."""
    connection.sendall(b"x")

    def repeated() -> int:
        if is_reset(connection):
            return 1
        # struct tcp_info, tcpi_total_retrans (include/uapi/linux/tcp.h)
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[100]

    return eventually(repeated, "it is sent again, or reset")
