"""How large the peer's segments are is guessed anew when a connection is passed, and the window depends on it.

Source: net/ipv4/tcp_input.c tcp_initialize_rcv_mss(), tcp_measure_rcv_mss(); tcp_output.c tcp_connect_init().
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from netns import Hosts, eventually
from passing import pass_on

from tcpcp.endpoint import (
    calls,
    repair_mode,
)
from tcpcp.kernel import tcp_repair

_TCP_WINDOW_CLAMP, _TCP_REPAIR_WINDOW = 10, 29


def clamp(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, _TCP_WINDOW_CLAMP)


def receive(peer: socket.socket, sock: socket.socket, size: int) -> None:
    peer.sendall(bytes(size))
    eventually(lambda: tcp_repair.get_inq(sock) == size, "arrived")
    assert len(sock.recv(size)) == size


@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_a_small_request_leaves_the_window(hosts: Hosts, kind: str) -> None:
    """200 bytes take a buffer of 1 kB, which is not to say that five times their size is all overhead."""
    sock, peer = hosts.connect(kind)
    receive(peer, sock, 10_000)
    before = clamp(sock)
    _, sock = pass_on(hosts, sock)
    assert clamp(sock) == before
    receive(peer, sock, 200)
    assert clamp(sock) == before


@pytest.mark.parametrize(
    ("timestamps", "size", "before", "after"),
    ((0, 0, 536, 536), (1, 0, 536, 536), (0, 300, 300, 300), (1, 300, 288, 276)),
)
def test_as_after_a_handshake(hosts: Hosts, timestamps: int, size: int, before: int, after: int) -> None:
    """Where we have announced less than 548 bytes, 12 less: connect() takes the timestamps off a second time.

    :param size: of the segments that we have announced; 0: of the path.
    """

    def limit(sock: socket.socket) -> None:
        if size:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, size)

    for one in (hosts.here, hosts.there):
        with one.entered():
            Path("/proc/sys/net/ipv4/tcp_timestamps").write_text(str(timestamps))
    sock, _peer = hosts.connect(setup=limit)
    assert tcp_repair.get_info(sock).rcv_mss == before
    _, sock = pass_on(hosts, sock)
    assert tcp_repair.get_info(sock).rcv_mss == after


@pytest.mark.parametrize(("sysctl", "guess"), ((0, 300), (1, 288)))
def test_timestamps_that_are_not_agreed_are_counted(hosts: Hosts, sysctl: int, guess: int) -> None:
    """By connect() in repair mode, which looks at nothing but the sysctl: no call mends that.

    The walk over the space relies on it (space_judges.but_for_room()).
    """
    with hosts.there.entered():
        Path("/proc/sys/net/ipv4/tcp_timestamps").write_text("0")
    sock, _peer = hosts.connect(setup=lambda one: one.setsockopt(6, socket.TCP_MAXSEG, 300))
    assert tcp_repair.get_info(sock).rcv_mss == 300
    with hosts.here.entered():
        Path("/proc/sys/net/ipv4/tcp_timestamps").write_text(str(sysctl))
    _, sock = pass_on(hosts, sock)
    assert tcp_repair.get_info(sock).rcv_mss == guess


def test_without_a_window_it_is_88(hosts: Hosts) -> None:
    """What connect() guesses in repair mode, and what a window set before it makes of that."""
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        for room, guess in ((0, 88), (400, 200), (100_000, 536)):
            made = socket.socket()
            repair_mode.force_reuse(made)
            made.bind((str(ici.local.ip), 0))
            made.setsockopt(6, socket.TCP_MAXSEG, 1460)
            if room:
                made.setsockopt(6, _TCP_REPAIR_WINDOW, struct.pack("=5I", 0, 0, 0, room, 0))
            made.connect((str(ici.peer.ip), ici.peer.port))
            assert tcp_repair.get_info(made).rcv_mss == guess
            made.close()
