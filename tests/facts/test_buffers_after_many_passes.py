"""Passed a hundred times: buffers, locks and windows are what a connection that was never passed would have."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest
from netns import Hosts
from passing import assert_no_reset

import tcpcp

_SO_BUF_LOCK = 72
_PASSES = 100


def sizes(sock: socket.socket) -> tuple[int, int, int]:
    options = (socket.SO_RCVBUF, socket.SO_SNDBUF, _SO_BUF_LOCK)
    receive, send, lock = (sock.getsockopt(socket.SOL_SOCKET, one) for one in options)
    return receive, send, lock


@pytest.mark.parametrize("chosen", ((), (socket.SO_RCVBUF,), (socket.SO_RCVBUF, socket.SO_SNDBUF)))
def test_idle(hosts: Hosts, chosen: tuple[int, ...]) -> None:
    """Exactly the same; what the application has set, and what it has left to the kernel."""
    sock, peer = hosts.connect()
    for option in chosen:
        sock.setsockopt(socket.SOL_SOCKET, option, 100_000)
    before = sizes(sock)
    windows = set()
    with hosts.here.entered():
        for _ in range(_PASSES):
            ici = tcpcp.get(sock)
            windows.add(ici.window.rcv_wnd)
            tcpcp.release(sock)
            sock = tcpcp.create(ici)
            tcpcp.activate(sock)
            peer.sendall(b"1")
            assert sock.recv(1) == b"1"
    assert sizes(sock) == before
    # A window once announced is not taken back, and a byte read opens it no further than the buffer.
    assert max(windows) <= before[0]
    assert_no_reset(hosts)


def test_a_large_buffer_of_the_application(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, 33, 1_000_000)
    before = sizes(sock)
    with hosts.here.entered():
        for _ in range(5):
            ici = tcpcp.get(sock)
            tcpcp.release(sock)
            sock = tcpcp.create(ici)
            tcpcp.activate(sock)
            peer.sendall(b"x" * 100_000)
            assert sock.recv(100_000, socket.MSG_WAITALL) == b"x" * 100_000
            assert sizes(sock) == before


def test_in_the_middle_of_bulk(hosts: Hosts) -> None:
    """The peer sends without a pause. The buffer grows as far as the kernel tunes one, and each pass keeps it."""
    most = int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2])
    sock, peer = hosts.connect()
    stop = threading.Event()
    thread = threading.Thread(target=feed, args=(peer, stop), daemon=True)
    thread.start()
    sock.settimeout(10)
    largest = 0
    with hosts.here.entered():
        for number in range(_PASSES):
            got = 0
            while got < (20_000_000 if number < 3 else 1_000_000):
                got += len(sock.recv(1 << 18))
            asked = sizes(sock)
            ici = tcpcp.get(sock)
            before = sizes(sock)  # the kernel may have made it larger until it was isolated
            assert before[0] >= asked[0] and before[1:] == asked[1:]
            tcpcp.release(sock)
            sock = tcpcp.create(ici)
            after = sizes(sock)
            tcpcp.activate(sock)
            sock.settimeout(10)
            waiting = len(ici.receive_queue.data)
            assert after[1:] == before[1:]
            # What waits may take more room than it did: it came in full buffers, and goes in by copying.
            # Less one where it was odd: what is set is doubled by the kernel.
            assert before[0] - 1 <= after[0] <= max(before[0], 4 * waiting)
            assert ici.window.rcv_wnd <= most
            largest = max(largest, after[0])
    stop.set()
    thread.join()
    assert largest <= 2 * most
    assert_no_reset(hosts)


def feed(peer: socket.socket, stop: threading.Event) -> None:
    """Send until *stop*. What is lost in a gap goes again by the peer's own timer, maybe only after several."""
    peer.settimeout(0.5)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            peer.send(b"x" * 200_000)
