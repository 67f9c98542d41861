"""What was delivered and not acknowledged yet is acknowledged as soon as the connection goes on.

The peer writes twice with Nagle's algorithm and then waits for an answer: its second write leaves when the first
is acknowledged. Judged by nstat on the peer.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from gap_hosts import GapHosts, Moving, since
from netns import eventually

from tcpcp.endpoint import calls
from tcpcp.kernel import tcp_repair

T = TypeVar("T")
TRIES = 10


@pytest.fixture
def hosts(gap_hosts: GapHosts) -> GapHosts:
    return gap_hosts


def holding_back(hosts: GapHosts, version: int) -> tuple[socket.socket, socket.socket]:
    """The service's end, which delays its acknowledgement of the first write, and the peer's, with its second."""
    with hosts.origin.entered():
        calls.prepare()  # which takes longer than an acknowledgement is delayed
    sock, peer = hosts.connect(version)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    peer.sendall(b"head")
    peer.sendall(b"body")
    eventually(lambda: tcp_repair.get_inq(sock) == 4, "the first write has come")
    return sock, peer


def got_in_time(hosts: GapHosts, version: int, get: Callable[[socket.socket], T]) -> tuple[T, socket.socket]:
    """What *get* gives of such a connection, and the peer's end: nothing was acknowledged before it was got.

    On a busy machine the 40 ms may be over by then; that connection shows nothing, another one does.
    """
    for _ in range(TRIES):
        sock, peer = holding_back(hosts, version)
        given = get(sock)
        if tcp_repair.get_outq(peer) == 8:
            return given, peer
    raise AssertionError(f"acknowledged too early {TRIES} times")


def assert_answered(
    hosts: GapHosts, sock: socket.socket, peer: socket.socket, before: dict[str, int]
) -> None:
    received = b""
    while len(received) < 8:
        received += sock.recv(8)
    sock.sendall(b"answer")
    assert (received, peer.recv(10)) == (b"headbody", b"answer")
    assert since(hosts, before) == {}


@pytest.mark.parametrize("version", (4, 6))
def test_after_a_move(hosts: GapHosts, version: int) -> None:
    moving, peer = got_in_time(hosts, version, lambda sock: Moving.get(hosts, version, sock))
    before = hosts.counters(hosts.peer)
    moving.rebuild()
    assert_answered(hosts, moving.activate(), peer, before)


def test_whose_timer_ran_out_while_it_was_isolated(hosts: GapHosts) -> None:
    """Its acknowledgement was lost then, and nothing of the connection shows it any more."""

    def got(sock: socket.socket) -> socket.socket:
        calls.get(sock)
        return sock

    with hosts.origin.entered():
        sock, peer = got_in_time(hosts, 4, got)
        before = hosts.counters(hosts.peer)
        time.sleep(0.06)
        calls.activate(sock)
    assert_answered(hosts, sock, peer, before)
