"""Numbers of struct tcp_info that the library has no use for: what the kernel makes of what it was given."""

from __future__ import annotations

import socket
import struct


def rto_us(sock: socket.socket) -> int:
    """``tcpi_rto``: after what time without an acknowledgement *sock* sends again."""
    return _number(sock, 8)


def rcv_mss(sock: socket.socket) -> int:
    """``tcpi_rcv_mss``: what *sock* takes for the size of its peer's segments, bytes."""
    return _number(sock, 20)


def _number(sock: socket.socket, offset: int) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, offset + 4)
    return int(struct.unpack_from("=I", info, offset)[0])
