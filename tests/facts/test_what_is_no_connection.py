"""Calls that are given something that stands for a socket, or that is none: an answer or the library's error."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable
from typing import Any

import pytest
from netns import Hosts

import tcpcp
from tcpcp import Unsupported, aio


class Standing:
    """Has a fileno(), and no more."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno = sock.fileno


def test_the_size_of_what_stands_for_a_socket(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    sock.sendall(b"x" * 1000)
    assert tcpcp.max_size(Standing(sock)) == tcpcp.max_size(sock) == tcpcp.size(Standing(sock))
    peer.close()


OTHERS: dict[str, Callable[[], socket.socket]] = {
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "unix": lambda: socket.socketpair()[0],
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP),
}


@pytest.mark.parametrize("what", OTHERS)
def test_the_size_of_what_is_no_tcp_socket(hosts: Hosts, what: str) -> None:
    with hosts.here.entered(), OTHERS[what]() as other:
        for call in (tcpcp.max_size, tcpcp.size):
            with pytest.raises(Unsupported, match="not a TCP socket"):
                call(other)


CALLS: tuple[Callable[[Any], object], ...] = (
    tcpcp.inspect,
    tcpcp.get,
    tcpcp.max_size,
    tcpcp.size,
    tcpcp.resume,
    tcpcp.release,
    tcpcp.hold_new,
    tcpcp.drain,
    lambda given: asyncio.run(aio.attach(given)),
)


@pytest.mark.parametrize("given", [None, "socket", b"", object()])
def test_what_is_no_socket_at_all(hosts: Hosts, given: object) -> None:
    with hosts.here.entered():
        for call in CALLS:
            with pytest.raises(Unsupported, match="socket"):
                call(given)


class OfNoDescriptor:
    """As a file of Python's that is closed, or a pair of two."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def fileno(self) -> int:
        raise self._error


@pytest.mark.parametrize(
    "error", [ValueError("I/O operation on closed file"), io.UnsupportedOperation("fileno")], ids=repr
)
def test_what_has_no_descriptor(hosts: Hosts, error: Exception) -> None:
    with hosts.here.entered():
        for call in CALLS:
            with pytest.raises(Unsupported, match="socket"):
                call(OfNoDescriptor(error))
