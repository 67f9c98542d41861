"""A connection is passed between two sockets; the judge is its peer."""

from __future__ import annotations

import random
import re
import socket
from pathlib import Path

import pytest
from drain import Drain
from netns import Hosts, eventually
from passing import assert_no_reset, deaf, pass_on, state_of, wait_state

from tcpcp.endpoint import calls, isolation
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State

KINDS = ("v4", "v6", "mapped")


def data(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def finish(hosts: Hosts, made: socket.socket, peer: socket.socket, sent: bytes, received: bytes) -> None:
    """Both sides send more, close, and get all that was sent to them, in order and once."""
    more_there, more_here = data(300_000, 3), data(300_000, 4)
    made.setblocking(True)
    peer.setblocking(True)
    drain_there, drain_here = Drain(peer), Drain(made)
    if state_of(made) in (State.ESTABLISHED, State.CLOSE_WAIT):
        made.sendall(more_there)
        sent += more_there
        made.shutdown(socket.SHUT_WR)
    if state_of(peer) in (State.ESTABLISHED, State.CLOSE_WAIT):
        peer.sendall(more_here)
        received += more_here
        peer.shutdown(socket.SHUT_WR)
    drain_there.finished(sent)
    drain_here.finished(received)
    made.close()
    peer.close()
    assert_no_reset(hosts)


def fill(sock: socket.socket, content: bytes) -> bytes:
    """Write until the kernel takes no more; what it took."""
    sock.setblocking(False)
    done = 0
    try:
        while done < len(content):
            done += sock.send(content[done : done + 1_000_000])
    except BlockingIOError:
        pass
    return content[:done]


@pytest.mark.parametrize("kind", KINDS)
def test_idle(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    ici, made = pass_on(hosts, sock)
    assert ici.ipv6_socket == (kind != "v4")
    assert ici.local.ip.version == (6 if kind == "v6" else 4)
    finish(hosts, made, peer, b"", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_receive_queue(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    content = data(50_000)
    peer.sendall(content)
    eventually(lambda: tcp_repair.get_inq(sock) == len(content), "all has arrived")
    ici, made = pass_on(hosts, sock)
    assert ici.receive_queue.data == content
    finish(hosts, made, peer, b"", content)


@pytest.mark.parametrize("kind", KINDS)
def test_sent_and_lost(hosts: Hosts, kind: str) -> None:
    """What was sent and never arrived is retransmitted by the new endpoint."""
    sock, peer = hosts.connect(kind)
    content = data(9_000)
    with deaf(hosts.there):
        sock.sendall(content)
        ici, made = pass_on(hosts, sock)
    assert ici.send_queue.sent == content
    finish(hosts, made, peer, content, b"")


def test_sent_and_arrived(hosts: Hosts) -> None:
    """What arrived, its acknowledgement lost, is not needed again: the wake-up fetches it."""
    sock, peer = hosts.connect()
    content = data(9_000)
    with deaf(hosts.there, "output"):
        sock.sendall(content)
        eventually(lambda: tcp_repair.get_inq(peer) == len(content), "arrived")
        with hosts.here.entered():
            ici = calls.get(sock)
            calls.release(sock)
            made = calls.create(ici)
    with hosts.here.entered():
        calls.activate(made)
    assert ici.send_queue.sent == content
    eventually(lambda: not tcp_repair.get_outq(made), "acknowledged", 0.5)
    finish(hosts, made, peer, content, b"")


@pytest.mark.parametrize("kind", KINDS)
def test_unsent(hosts: Hosts, kind: str) -> None:
    """The peer's window is full; what waits goes out when it opens."""
    sock, peer = hosts.connect(kind)
    content = fill(sock, data(8_000_000))
    eventually(lambda: tcp_repair.get_outq_nsd(sock) == tcp_repair.get_outq(sock) > 0, "window full")
    ici, made = pass_on(hosts, sock)
    assert ici.send_queue.unsent
    finish(hosts, made, peer, content, b"")


def test_unsent_goes_at_once(hosts: Hosts) -> None:
    """Data held back by TCP_CORK, uncorked while isolated, goes out when activated, without a timer."""
    sock, peer = hosts.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    sock.sendall(b"held back")
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        assert ici.send_queue.unsent == b"held back"
        ici.options.pop("TCP_CORK")
        made = calls.create(ici)
        assert hosts.counters(hosts.here)["TcpRetransSegs"] == 0
        calls.activate(made)
    peer.settimeout(0.5)
    assert peer.recv(100) == b"held back"
    finish(hosts, made, peer, b"", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_large_queues(hosts: Hosts, kind: str) -> None:
    """Tens of megabytes both ways, sent, unsent and received."""

    def large(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, 33, 48_000_000)
        sock.setsockopt(socket.SOL_SOCKET, 32, 48_000_000)

    with hosts.here.entered():
        for name in ("rmem", "wmem"):
            Path(f"/proc/sys/net/ipv4/tcp_{name}").write_text("4096 131072 96000000")
    sock, peer = hosts.connect(kind, setup=large)
    peer.setsockopt(socket.SOL_SOCKET, 32, 48_000_000)
    received = fill(peer, data(30_000_000, 7))
    eventually(lambda: tcp_repair.get_inq(sock) == len(received), "all has arrived", 20)
    sent = fill(sock, data(30_000_000, 8))
    ici, made = pass_on(hosts, sock)
    assert len(ici.receive_queue.data) > 25_000_000
    assert len(ici.send_queue.unsent) > 10_000_000
    assert made.getsockopt(socket.SOL_SOCKET, 72) == ici.options.get("SO_BUF_LOCK", 0)
    finish(hosts, made, peer, sent, received)


@pytest.mark.parametrize("waiting", (0, 20_000))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "state",
    (State.CLOSE_WAIT, State.FIN_WAIT1, State.FIN_WAIT2, State.LAST_ACK, State.CLOSING),
    ids=lambda state: state.name,
)
def test_half_closed(hosts: Hosts, kind: str, state: State, waiting: int) -> None:
    """Every state after ESTABLISHED, with and without data in the queues."""
    sock, peer = hosts.connect(kind)
    sent = received = b""
    if waiting:
        received = data(waiting, 11)
        peer.sendall(received)
        eventually(lambda: tcp_repair.get_inq(sock) == waiting, "arrived")
    if state in (State.CLOSE_WAIT, State.LAST_ACK):
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
    if state is State.CLOSE_WAIT:
        _, made = pass_on(hosts, sock)
    elif state is State.FIN_WAIT2:
        sent = data(waiting, 12)
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        wait_state(sock, state)
        _, made = pass_on(hosts, sock)
    else:
        with deaf(hosts.there):
            sent = data(waiting // 4, 12)
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            if state is State.CLOSING:
                peer.shutdown(socket.SHUT_WR)
            wait_state(sock, state)
            # On a path of which nothing is known it takes seconds to send again: once is enough.
            ici, made = pass_on(hosts, sock, same_path=kind != "v4")
            assert ici.send_queue.fin_sent
    finish(hosts, made, peer, sent, received)


@pytest.mark.parametrize("state", (State.FIN_WAIT1, State.LAST_ACK), ids=lambda state: state.name)
def test_fin_behind_unsent_data(hosts: Hosts, state: State) -> None:
    sock, peer = hosts.connect()
    sent = fill(sock, data(8_000_000))
    eventually(lambda: tcp_repair.get_outq_nsd(sock) == tcp_repair.get_outq(sock) > 0, "window full")
    if state is State.LAST_ACK:
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
    sock.shutdown(socket.SHUT_WR)
    ici, made = pass_on(hosts, sock)
    assert (ici.send_queue.fin, ici.send_queue.fin_sent) == (True, False)
    finish(hosts, made, peer, sent, b"")


def mss(hosts: Hosts) -> list[int]:
    lines = hosts.ss(hosts.here, "-tinH state established")
    return [int(number) for number in re.findall(r"\bmss:(\d+)", lines)]


@pytest.mark.parametrize("kind", KINDS)
def test_segment_size(hosts: Hosts, kind: str) -> None:
    """Judged by ss: the segments are as large as before, from the first one on."""
    sock, peer = hosts.connect(kind)
    before = mss(hosts)
    _, made = pass_on(hosts, sock)
    assert mss(hosts) == before == [1428 if kind == "v6" else 1448]
    finish(hosts, made, peer, b"", b"")


def test_any_free_port(hosts: Hosts) -> None:
    """Paper 2.1: port 0 in the ICI, and a socket that is bound already."""
    import dataclasses

    sock, _ = hosts.connect()
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        anywhere = dataclasses.replace(ici, local=dataclasses.replace(ici.local, port=0))
        made = calls.create(anywhere)
        assert made.getsockname()[1] not in (0, ici.local.port)
        calls.release(made)
        bound = socket.socket()
        bound.bind((str(ici.local.ip), 0))
        port = bound.getsockname()[1]
        assert calls.create(ici, sock=bound) is bound
        assert bound.getsockname()[1] == port
        calls.release(bound)
    assert_no_reset(hosts)


def test_beside_a_listener(hosts: Hosts) -> None:
    """The listener that accepted the connection is there still, or again."""
    with hosts.here.entered():
        listener = socket.create_server((hosts.here_ip[4], 0))
    with hosts.there.entered():
        peer = socket.socket()
    peer.connect(listener.getsockname())
    sock, _ = listener.accept()
    ici, made = pass_on(hosts, sock)
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == ici.options.get("SO_REUSEADDR", 0) == 1
    finish(hosts, made, peer, b"", b"")


def test_resume(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    with hosts.here.entered():
        before = hosts.counters(hosts.here)["TcpOutSegs"]
        calls.get(sock)
        calls.resume(sock)
        assert hosts.counters(hosts.here)["TcpOutSegs"] == before
        assert isolation.tables() == []
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    finish(hosts, sock, peer, b"", b"")


def test_options(hosts: Hosts) -> None:
    """Options are as before, and an unset buffer size goes on being tuned."""
    sock, peer = hosts.connect()
    wanted = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 12345),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
        (socket.IPPROTO_TCP, socket.TCP_LINGER2, 7),
        (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 4096),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_IP, socket.IP_TOS, 0x10),
        (socket.SOL_SOCKET, socket.SO_PRIORITY, 5),
        (socket.SOL_SOCKET, socket.SO_MARK, 0x80000001 - 2**32),
        (socket.SOL_SOCKET, 47, 1_000_000_000),
        (socket.IPPROTO_IP, socket.IP_TTL, 33),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000),
    ]
    for level, number, value in wanted:
        sock.setsockopt(level, number, value)
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text()
    algorithm = "reno" if "reno" in available else "cubic"
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\5\0\0\0")
    _, made = pass_on(hosts, sock)
    for level, number, value in wanted[:-1]:
        assert made.getsockopt(level, number) == value
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 200_000
    assert made.getsockopt(socket.SOL_SOCKET, 72) == 1
    assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == algorithm.encode()
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == b"\1\0\0\0\5\0\0\0"
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\0" * 8)
    finish(hosts, made, peer, b"", b"")


def test_a_prepared_filter_stays_and_another_goes(hosts: Hosts) -> None:
    """One that was prepared is used again and again; one made when it was needed goes with the last."""
    with hosts.here.entered():
        sock, peer = hosts.connect()
        calls.get(sock)
        assert len(isolation.tables()) == 1
        calls.resume(sock)
        assert isolation.tables() == []
        calls.prepare()
        (name,) = isolation.tables()
        for _ in range(3):
            calls.get(sock)
            calls.resume(sock)
            assert isolation.tables() == [name]
    finish(hosts, sock, peer, b"", b"")
