"""What a real connection has promised and holds is never too much for a host with the same limits."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import time
from pathlib import Path

import pytest
from netns import Hosts, eventually
from passing import pass_on, wait_state

from tcpcp.endpoint import calls, host, reader
from tcpcp.errors import IciError
from tcpcp.kernel import tcp_repair
from tcpcp.record import checks
from tcpcp.record.ici import Ici, State


def problems(ici: Ici) -> list[str]:
    """What is wrong for this host, if it had no more to offer than its receive buffers."""
    limits = dataclasses.replace(host.limits(), max_receive_queue_bytes=len(ici.receive_queue.data))
    return checks.problems(ici, limits)


def fill(peer: socket.socket, piece: bytes) -> None:
    """Write pieces of that size until the peer's window is closed, or enough."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        for _ in range(min(40_000_000 // len(piece), 20_000)):
            peer.sendall(piece)


@pytest.mark.parametrize("piece", (1, 100, 1448, 1_000_000))
@pytest.mark.parametrize("shrunk", (False, True))
def test_a_full_receive_buffer(hosts: Hosts, piece: int, shrunk: bool) -> None:
    """As large as an application may have it, and then made small: the window is not taken back."""
    sock, peer = hosts.connect()
    most = host.limits().max_receive_buffer_bytes
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, most)
    fill(peer, bytes(piece))
    if shrunk:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with hosts.here.entered():
        ici = calls.get(sock)
        assert problems(ici) == []
        calls.resume(sock)
        assert ici.receive_queue.data


def test_a_buffer_that_the_kernel_has_tuned(hosts: Hosts) -> None:
    """Read as it comes for a while, so that the buffer grows; then left alone."""
    sock, peer = hosts.connect()
    peer.setblocking(False)
    content, read = bytes(4_000_000), 0
    while read < 60_000_000:
        with contextlib.suppress(BlockingIOError):
            peer.send(content)
        read += len(sock.recv(1_000_000))
    fill(peer, content)
    with hosts.here.entered():
        ici = calls.get(sock)
        assert ici.options["SO_RCVBUF"] > 500_000 and "SO_BUF_LOCK" not in ici.options
        assert problems(ici) == []
        calls.resume(sock)


def test_an_application_with_so_rcvbufforce(hosts: Hosts) -> None:
    """It has chosen more than this host permits: that is said, and works once the host permits it."""

    def large(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, 33, 50_000_000)

    sock, peer = hosts.connect(setup=large)
    peer.sendall(bytes(1_000_000))
    eventually(lambda: tcp_repair.get_inq(sock) == 1_000_000, "arrived")
    with hosts.here.entered():
        ici = calls.get(sock)
        assert checks.problems(ici, host.limits()) == [
            "SO_RCVBUF is 100000000, which the application has chosen; this host permits "
            f"{host.limits().max_receive_buffer_bytes}: raise net.core.rmem_max to 50000000"
        ]
        calls.resume(sock)
        Path("/proc/sys/net/ipv4/tcp_rmem").write_text("4096 131072 100000000")
    _, made = pass_on(hosts, sock)
    assert len(made.recv(1_000_000, socket.MSG_WAITALL)) == 1_000_000
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100_000_000


def test_a_window_that_no_buffer_can_hold_is_refused(hosts: Hosts) -> None:
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        window = dataclasses.replace(ici.window, rcv_wnd=1_000_000_000)
        before = hosts.ss(hosts.here)
        with pytest.raises(IciError, match=r"raise the last number of net\.ipv4\.tcp_rmem"):
            calls.create(dataclasses.replace(ici, window=window))
        assert hosts.ss(hosts.here) == before


@pytest.mark.parametrize("scaling", (0, 1))
def test_no_acknowledgement_is_left_over(hosts: Hosts, scaling: int) -> None:
    """The peer's FIN is fed to a new socket, which would acknowledge it 40 ms later with a window of its own."""
    with hosts.there.entered():
        Path("/proc/sys/net/ipv4/tcp_window_scaling").write_text(str(scaling))
    sock, peer = hosts.connect(setup=lambda one: one.setsockopt(1, socket.SO_RCVBUF, 1_000_000))
    peer.sendall(bytes(700))
    eventually(lambda: tcp_repair.get_inq(sock) == 700, "arrived")
    peer.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSE_WAIT)
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        made = calls.create(ici)
        time.sleep(0.1)
        assert reader.read_again(made, ici).window == ici.window
        calls.activate(made)
    assert made.recv(1000) == bytes(700) and made.recv(1) == b""
