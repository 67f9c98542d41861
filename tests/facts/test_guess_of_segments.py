"""How large the peer's segments are is guessed anew when a connection is passed, and the window depends on it.

Source: net/ipv4/tcp_input.c tcp_initialize_rcv_mss(), tcp_measure_rcv_mss(); tcp_output.c tcp_connect_init().
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import kernel_info
import pytest
from netns import Hosts, eventually
from passing import pass_on
from space_pairs import World

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
    assert kernel_info.rcv_mss(sock) == before
    _, sock = pass_on(hosts, sock)
    assert kernel_info.rcv_mss(sock) == after


@pytest.mark.parametrize(("sysctl", "guess"), ((0, 300), (1, 288)))
def test_timestamps_that_are_not_agreed_are_counted(hosts: Hosts, sysctl: int, guess: int) -> None:
    """By connect() in repair mode, which looks at nothing but the sysctl: no call mends that.

    The walk over the space relies on it (space_judges.but_for_room()); what comes of it is shown below.
    """
    with hosts.there.entered():
        Path("/proc/sys/net/ipv4/tcp_timestamps").write_text("0")
    sock, _peer = hosts.connect(setup=lambda one: one.setsockopt(6, socket.TCP_MAXSEG, 300))
    assert kernel_info.rcv_mss(sock) == 300
    with hosts.here.entered():
        Path("/proc/sys/net/ipv4/tcp_timestamps").write_text(str(sysctl))
    _, sock = pass_on(hosts, sock)
    assert kernel_info.rcv_mss(sock) == guess


@pytest.fixture
def one_by_one() -> Iterator[World]:
    """Hosts that send each segment alone."""
    world = World(9000)
    yield world
    world.close()


def warm_up(peer: socket.socket, sock: socket.socket) -> None:
    """Read what the peer writes, until it may send a whole window at once."""
    peer.setblocking(False)
    read = 0
    while read < 300_000:
        with contextlib.suppress(BlockingIOError):
            peer.send(bytes(5000))
        with contextlib.suppress(BlockingIOError):
            read += len(sock.recv(100_000, socket.MSG_DONTWAIT))
    peer.settimeout(0.3)


def fill(peer: socket.socket) -> None:
    """Write until the peer's buffer and our own are full."""
    with contextlib.suppress(TimeoutError):
        while True:
            peer.send(bytes(30_000))


@pytest.mark.parametrize(
    ("passed", "sysctl", "joined"), ((False, 1, True), (True, 0, True), (True, 1, False))
)
def test_what_waits_is_joined_where_the_guess_was_right(
    one_by_one: World, passed: bool, sysctl: int, joined: bool
) -> None:
    """Else a full buffer shuts a window that it had promised, and drops what comes, and the peer sends it again.

    Here full segments have 524 bytes, as was guessed after the handshake. connect() in repair mode takes off
    the timestamps a second time, unless it is told by the sysctl that there are none: no call of ours does that.

    :param joined: small segments in a full buffer are made larger ones, so that there is room again.
    """

    def small(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 30_000)

    hosts = one_by_one
    sock, peer = hosts.connect(setup=small)
    warm_up(peer, sock)
    before = clamp(sock)
    with hosts.here.entered():
        Path("/proc/sys/net/ipv4/tcp_timestamps").write_text(str(sysctl))
    if passed:
        _, sock = pass_on(hosts, sock)
    assert kernel_info.rcv_mss(sock) == (524 if joined else 512)
    assert clamp(sock) == before
    old = hosts.counters(hosts.here)
    fill(peer)
    assert (clamp(sock) == before) == joined
    new = hosts.counters(hosts.here)
    collapsed, dropped = (
        new[f"TcpExtTCPRcv{name}"] > old[f"TcpExtTCPRcv{name}"] for name in ("Collapsed", "QDrop")
    )
    assert (collapsed, dropped) == (joined, not joined)


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
            assert kernel_info.rcv_mss(made) == guess
            made.close()
