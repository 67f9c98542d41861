"""What is not sent yet stays unsent while the queues are read: the kernel would count all of it as sent.

Source: net/ipv4/tcp_output.c tcp_write_xmit(), "repair".
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from meddling import written
from netns import Hosts, eventually
from passing import assert_no_reset

import tcpcp
from tcpcp.kernel import fields, peeking, tcp_repair

SO_MAX_PACING_RATE = 47
#: As many bytes as a segment may have leave every 33 ms; all that the buffer takes in 0.1 s or more.
RATE_BYTES_S, BUFFER_BYTES = 2_000_000, 1_000_000
LONG_S = 0.05
RTO_S = 0.2
AT_ONCE = -1  # ~0U, "no rate"
ROUNDS = 3


@pytest.fixture(params=[True, False], ids=["with BPF", "without"])
def told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the kernel tells when the next segment may leave."""
    fields.prepare()
    read = peeking._alone.recv

    def read_slowly(*arguments: Any) -> Any:
        """A segment's time comes while the queue is selected."""
        time.sleep(LONG_S)
        return read(*arguments)

    monkeypatch.setattr(peeking._alone, "recv", read_slowly)
    if not request.param:
        monkeypatch.setattr(fields, "_made", [])
        monkeypatch.setattr(fields, "_refused", [OSError()])


@contextlib.contextmanager
def paced(hosts: Hosts) -> Iterator[tuple[list[socket.socket], Callable[[], bool]]]:
    """A connection with much to send, a little each millisecond, and whether its peer has read all of it.

    The last of the sockets sends the rest at once, if it is not held, and is ended.
    """
    sock, peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, RATE_BYTES_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    got, written = bytearray(), 0

    def read() -> None:
        while part := peer.recv(1 << 16):
            got.extend(part)

    thread = threading.Thread(target=read)
    thread.start()
    with contextlib.suppress(BlockingIOError):
        while True:
            written += sock.send(bytes(1 << 16), socket.MSG_DONTWAIT)
    time.sleep(0.003)
    ours = [sock]

    def is_read() -> bool:
        ours[-1].setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, AT_ONCE)
        return len(got) == written

    yield ours, is_read
    ours[-1].shutdown(socket.SHUT_WR)
    thread.join(20)
    assert not thread.is_alive()


def test_it_stays_unsent(hosts: Hosts, told: None) -> None:
    """In the ICI, and in the socket, which goes on."""
    for _ in range(ROUNDS):
        with paced(hosts) as (ours, is_read), hosts.here.entered():
            ici = tcpcp.get(sock := ours[0])
            assert ici.send_queue.unsent
            assert tcp_repair.get_outq_nsd(sock) == len(ici.send_queue.unsent)
            assert tcp_repair.get_window(sock) == ici.window
            tcpcp.resume(sock)
            eventually(is_read, "all of it")
    assert_no_reset(hosts)


def test_passed_on_it_goes_on_where_it_was(hosts: Hosts, told: None) -> None:
    """What had not been sent is sent for the first time."""
    for _ in range(ROUNDS):
        with paced(hosts) as (ours, is_read), hosts.here.entered():
            ici = tcpcp.get(sock := ours[0])
            tcpcp.release(sock)
            ours.append(made := tcpcp.create(ici))
            assert tcp_repair.get_outq_nsd(made) == len(ici.send_queue.unsent) > 0
            tcpcp.activate(made)
            eventually(is_read, "all of it")
    assert_no_reset(hosts)


def test_what_is_written_meanwhile_stays_unsent(
    hosts: Hosts, told: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thread that is not Python's: it counts as sent, and is not. Passed on, it is, at once."""
    read, ours = peeking._alone.recv, []

    def read_and_write(number: int, *arguments: Any) -> Any:
        if not ours:
            ours.append(written(sock, b"by another"))
        return read(number, *arguments)

    monkeypatch.setattr(peeking._alone, "recv", read_and_write)
    sock, peer = hosts.connect()
    with hosts.here.entered():
        sock.setsockopt(socket.IPPROTO_TCP, tcp_repair.TCP_CORK, 1)
        sock.sendall(b"first, ")
        ici = tcpcp.get(sock)
        assert ours == [10] and tcp_repair.get_outq_nsd(sock) == 0
        assert ici.send_queue.unsent == b"first, by another"
        tcpcp.release(sock)
        with tcpcp.create(ici) as made:
            began = time.monotonic()
            tcpcp.activate(made)
            assert peer.recv(17, socket.MSG_WAITALL) == b"first, by another"
            assert time.monotonic() - began < RTO_S


def test_where_the_queue_is_selected_without_that(hosts: Hosts) -> None:
    """The fact: all is sent, as far as the socket knows."""
    with paced(hosts) as ((sock,), _):
        tcp_repair.set_repair(sock, tcp_repair.ON)
        unsent_bytes = tcp_repair.get_outq_nsd(sock)
        tcp_repair.select_queue(sock, tcp_repair.SEND_QUEUE)
        time.sleep(LONG_S)
        tcp_repair.select_queue(sock, tcp_repair.NO_QUEUE)
        assert tcp_repair.get_outq_nsd(sock) < unsent_bytes
        tcp_repair.set_repair(sock, tcp_repair.OFF)
