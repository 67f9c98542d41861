"""A connection with something to send, and a peer whose window is shut, survives being held: no probe counts."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from netns import Hosts, eventually
from passing import assert_no_reset, state_of
from programs import threads_named

import tcpcp
from tcpcp.endpoint import patience
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State

#: By tcp_retries2: for how long it is held, s; more than the kernel waits for an answer.
HELD_S = {0: 1.0, 1: 2.0, 3: 4.5, 5: 15.0}
_NAME = "tcpcp keepalive"


def set_retries(number: int) -> None:
    Path("/proc/sys/net/ipv4/tcp_retries2").write_text(str(number))


def behind_a_shut_window(hosts: Hosts) -> tuple[socket.socket, socket.socket, int]:
    """With bytes that were never sent; and how many the peer is to read in all."""
    sock, peer = hosts.connect()
    sock.setblocking(False)
    written = 0
    while True:
        try:
            written += sock.send(b"x" * 5000)
        except BlockingIOError:
            if tcp_repair.get_outq(sock) == tcp_repair.get_outq_nsd(sock) > 0:
                return sock, peer, written
            time.sleep(0.01)


def close_wait(sock: socket.socket, peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)
    eventually(lambda: state_of(sock) is State.CLOSE_WAIT, "CLOSE_WAIT")


def fin_wait1(sock: socket.socket, peer: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    assert state_of(sock) is State.FIN_WAIT1


def read_all(peer: socket.socket, size_bytes: int) -> None:
    peer.settimeout(20)
    while size_bytes > 0:
        data = peer.recv(1 << 20)
        assert data
        size_bytes -= len(data)
    assert size_bytes == 0


@pytest.fixture(autouse=True)
def gone() -> Iterator[None]:
    """The thread ends with the last connection that it is for."""
    yield
    eventually(lambda: not threads_named(_NAME), "it has ended", 15)


@pytest.mark.parametrize("retries", HELD_S)
def test_held(hosts: Hosts, retries: int) -> None:
    """Nothing of it reaches the peer, and resumed it goes on."""
    sock, peer, written = behind_a_shut_window(hosts)
    with hosts.here.entered():
        set_retries(retries)
        tcpcp.get(sock)
        heard = hosts.counters(hosts.there)["TcpInSegs"]
        time.sleep(HELD_S[retries])
        assert hosts.counters(hosts.there)["TcpInSegs"] == heard
        set_retries(15)
        tcpcp.resume(sock)
    read_all(peer, written)
    assert_no_reset(hosts)


@pytest.mark.parametrize("reach", (close_wait, fin_wait1))
def test_held_half_closed(hosts: Hosts, reach: Callable[[socket.socket, socket.socket], None]) -> None:
    sock, peer, written = behind_a_shut_window(hosts)
    reach(sock, peer)
    with hosts.here.entered():
        set_retries(1)
        tcpcp.get(sock)
        time.sleep(HELD_S[1])
        set_retries(15)
        tcpcp.activate(sock)
    read_all(peer, written)


def test_held_after_create(hosts: Hosts) -> None:
    """Its probes begin with a second and more, as it knows no round-trip time."""
    sock, peer, written = behind_a_shut_window(hosts)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        set_retries(1)
        made = tcpcp.create(ici)
        time.sleep(11)
        set_retries(15)
        tcpcp.activate(made)
    read_all(peer, written)
    made.close()


def test_an_acknowledgement_begins_the_count_anew(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: net/ipv4/tcp_input.c tcp_ack(); tcp_timer.c tcp_probe_timer(), which no user timeout puts off."""
    sock, peer, written = behind_a_shut_window(hosts)
    begin, given = patience.begin, []
    monkeypatch.setattr(patience, "begin", lambda *what: given.append(what))
    with hosts.here.entered():
        tcpcp.get(sock)
        eventually(lambda: probes(sock) >= 2, "two probes have not been answered")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 1_000_000
        begin(*given[0])
        eventually(lambda: probes(sock) == 0, "the count begins anew", 0.2)
        tcpcp.resume(sock)
    read_all(peer, written)


def probes(sock: socket.socket) -> int:
    """tcpi_probes."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)[3]


def tasks() -> set[str]:
    return {one.name for one in Path("/proc/self/task").iterdir()}


def test_no_thread_without_need(hosts: Hosts) -> None:
    """Nothing to send, or something on its way: retransmissions keep to the user timeout."""
    (idle, _), (busy, _) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        tcpcp.get(idle)
        tcpcp.resume(idle)
        before = tasks()
        tcpcp.get(busy)
        assert tasks() <= before
        tcpcp.resume(busy)


def test_how_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of 0.2 s, 0.2 + 0.4, ...; where nobody says what the limit is, as if it were the lowest."""
    file = tmp_path / "tcp_retries2"
    monkeypatch.setattr(patience, "_RETRIES", file)
    found = []
    for text in ("", "0", "1", "3", "15"):
        file.write_text(text)
        found.append(round(patience.interval_s(), 3))
    assert found == [0.1, 0.1, 0.3, 1.2, 7.2]
