"""How far the window that is told may open after a pass, where the receive buffer holds few of the peer's segments.

Source: net/ipv4/tcp.c tcp_set_window_clamp(); tcp_input.c tcp_grow_window(), tcp_clamp_window(),
tcp_measure_rcv_mss(); tcp_output.c __tcp_select_window().
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from netns import Hosts, eventually
from passing import pass_on

from tcpcp.endpoint import builder, calls, host, repair_mode, restored
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Ici

TCP, WINDOW_CLAMP = socket.IPPROTO_TCP, 10
#: Reported as twice that: three segments of 1448 bytes with what is beside them.
SMALL_BYTES = 2304


def opens_to(sock: socket.socket) -> int:
    """``tcpi_rcv_ssthresh``."""
    (size,) = struct.unpack_from("=I", sock.getsockopt(TCP, socket.TCP_INFO, 104), 64)
    return int(size)


def clamp(sock: socket.socket) -> int:
    return sock.getsockopt(TCP, WINDOW_CLAMP)


def drain(peer: socket.socket, sock: socket.socket, size_bytes: int) -> None:
    """Read *size_bytes* of what the peer writes all the time."""
    read = 0

    def enough() -> bool:
        nonlocal read
        with contextlib.suppress(BlockingIOError):
            peer.send(bytes(60_000), socket.MSG_DONTWAIT)
        with contextlib.suppress(BlockingIOError):
            read += len(sock.recv(60_000, socket.MSG_DONTWAIT))
        return read >= size_bytes

    eventually(enough, f"{size_bytes} bytes read")


def fill(peer: socket.socket) -> None:
    """Write until both buffers are full."""
    peer.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            peer.send(bytes(60_000))
    peer.settimeout(None)


def almost_shut(hosts: Hosts) -> tuple[socket.socket, socket.socket]:
    """A connection without window scaling whose window is smaller than a segment, for much waits to be read."""
    with hosts.there.entered():
        Path("/proc/sys/net/ipv4/tcp_window_scaling").write_text("0")
    sock, peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
    drain(peer, sock, 300_000)
    fill(peer)
    return sock, peer


def passed(hosts: Hosts, sock: socket.socket) -> tuple[Ici, socket.socket]:
    return pass_on(hosts, sock)


def passed_as_by_criu(hosts: Hosts, sock: socket.socket) -> tuple[Ici, socket.socket]:
    """Built, and then left as CRIU would: its window opens to as much as connect() has thought of."""
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        limits = host.limits()
        made = builder.begin(ici, limits=limits)
        builder.complete(made, ici, limits=limits)
        made.setsockopt(TCP, WINDOW_CLAMP, 1200)
        assert opens_to(made) == 1200
        restored.finish_restored(made, ici, may_feed=False)
        repair_mode.leave_repair(made, tcp_repair.OFF)
    return ici, made


@pytest.mark.parametrize("way", (passed, passed_as_by_criu))
def test_what_was_shut_opens_for_a_segment(
    hosts: Hosts, way: Callable[[Hosts, socket.socket], tuple[Ici, socket.socket]]
) -> None:
    """Else the peer sends by its timer only: 300 kB take a minute."""
    sock, peer = almost_shut(hosts)
    before = opens_to(sock)
    assert before >= 1448
    ici, made = way(hosts, sock)
    assert ici.window.rcv_wnd < 1448, "it was not shut"
    assert opens_to(made) == min(clamp(made), 2 * ici.negotiated.advmss) >= min(before, clamp(made))
    drain(peer, made, 300_000)


def test_a_window_that_was_open_is_as_it_was(hosts: Hosts) -> None:
    """What is larger than two segments is not made smaller, nor larger than what was told."""
    sock, peer = hosts.connect()
    drain(peer, sock, 1_000_000)
    ici, made = pass_on(hosts, sock)
    assert ici.window.rcv_wnd > 2 * ici.negotiated.advmss
    assert opens_to(made) == min(ici.window.rcv_wnd, clamp(made))


def told(peer: socket.socket) -> int:
    """``tcpi_snd_wnd``: the window that *peer* has been told."""
    (size,) = struct.unpack_from("=I", peer.getsockopt(TCP, socket.TCP_INFO, 232), 228)
    return int(size)


def test_how_much_of_a_buffer_is_window_is_measured_anew(hosts: Hosts) -> None:
    """Half of it (TCP_DEFAULT_SCALING_RATIO), until a segment with data has come: no call sets it.

    The peer has seen a window of 64 kB, and so sends less than half of that by its timer only. What it sends then
    fills what it was told, and that is what is measured: it never gets more.
    """
    with hosts.here.entered(), socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    drain(peer, sock, 1_000_000)
    fill(peer)
    assert told(peer) == 0
    before = clamp(sock)
    ici, made = pass_on(hosts, sock)
    assert opens_to(made) == clamp(made) == before
    made.recv(len(ici.receive_queue.data))
    assert eventually(lambda: told(peer), "a window is told") == 16384
    assert clamp(made) == before
    eventually(lambda: clamp(made) < before, "what the timer has sent is measured")
