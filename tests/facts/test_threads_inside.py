"""A call on the socket that has begun before get: what it reads or writes is passed once, or the passing refused.

The kernel looks at repair mode when recv() or send() begins. A thread that was woken in one of them, and has no
processor yet, goes on afterwards. Here that is the rule: it may run on one processor only, which the test keeps.
And splice() and shutdown(), which repair mode does not stop, do the same to the queues at any time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from netns import Hosts, eventually
from passing import assert_no_reset, wait_state
from programs import is_in_a_call

import tcpcp
from tcpcp.endpoint import reader, repair_mode
from tcpcp.kernel import fields, tcp_repair
from tcpcp.record.ici import State

_TRIES = 10


@pytest.fixture(params=(True, False), ids=("BPF", "no BPF"))
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to know where the queues are."""
    if not request.param:
        monkeypatch.setattr(fields, "look", lambda socks: [None] * len(socks))
        monkeypatch.setattr(fields, "numbers", lambda socks: [None] * len(socks))


def spliced(sock: socket.socket, size_bytes: int) -> bytes:
    """Taken from the receive queue, whatever mode *sock* is in."""
    out, into = os.pipe()
    try:
        moved = os.splice(sock.fileno(), into, size_bytes)
        return os.read(out, moved)
    finally:
        os.close(out)
        os.close(into)


def waits(hosts: Hosts, data: bytes) -> tuple[socket.socket, socket.socket]:
    sock, peer = hosts.connect()
    peer.sendall(data)
    eventually(lambda: tcp_repair.get_inq(sock) == len(data), "arrived")
    return sock, peer


def test_read_before_get_has_ended(hosts: Hosts, asked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading of the socket and the last look at it; the ICI begins behind."""
    sock, _ = waits(hosts, b"onetwo")
    real, took = reader._read_all, []

    def read_then_splice(*given: object) -> object:
        found = real(*given)  # type: ignore[arg-type]
        took.append(spliced(sock, 3))
        return found

    monkeypatch.setattr(reader, "_read_all", read_then_splice)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        assert (took, ici.receive_queue.data) == ([b"one"], b"two")
        tcpcp.release(sock)
        with tcpcp.create(ici) as made:
            tcpcp.activate(made)
            assert made.recv(10) == b"two"


def by_splice(sock: socket.socket) -> None:
    assert spliced(sock, 3) == b"one"


def by_shutdown(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("move", (by_splice, by_shutdown))
def test_moved_while_it_is_held(hosts: Hosts, asked: None, move: Callable[[socket.socket], None]) -> None:
    """Not released, with none of those got with it; resumed, all is there."""
    sock, peer = waits(hosts, b"onetwo")
    other, other_peer = hosts.connect()
    with hosts.here.entered():
        tcpcp.get_many([other, sock])
        move(sock)
        with pytest.raises(tcpcp.Moved) as caught:
            tcpcp.release_many([other, sock])
        assert tcp_repair.describe(sock) in str(caught.value) and isinstance(caught.value, tcpcp.Expired)
        assert tcp_repair.describe(other) not in str(caught.value)
        tcpcp.resume_many([other, sock])
    assert sock.recv(10) == (b"two" if move is by_splice else b"onetwo")
    if move is by_shutdown:
        assert peer.recv(1) == b""
    other_peer.sendall(b"x")
    assert other.recv(1) == b"x"
    assert_no_reset(hosts)


def test_moved_in_a_block(hosts: Hosts) -> None:
    sock, peer = waits(hosts, b"onetwo")
    with hosts.here.entered(), pytest.raises(tcpcp.Moved), tcpcp.passing([sock]):
        by_splice(sock)
    assert sock.recv(10) == b"two"
    peer.sendall(b"x")
    assert sock.recv(1) == b"x"


def test_read_between_the_end_and_get(hosts: Hosts) -> None:
    """Both sides have closed; what is unread is passed all the same, and looked after."""
    sock, peer = waits(hosts, b"onetwo")
    peer.shutdown(socket.SHUT_WR)
    sock.shutdown(socket.SHUT_WR)
    eventually(lambda: tcp_repair.get_state(sock) == 7, "CLOSE")
    with hosts.here.entered():
        tcpcp.get(sock)
        by_splice(sock)
        with pytest.raises(tcpcp.Moved):
            tcpcp.release(sock)
        tcpcp.resume(sock)
    assert sock.recv(10) == b"two"


def written_at_the_end(monkeypatch: pytest.MonkeyPatch, ours: socket.socket, data: bytes) -> None:
    """As by a thread in the middle of send(), between the last look and the end."""
    real = tcp_repair.disconnect

    def write_then_disconnect(sock: socket.socket) -> None:
        if sock is ours:
            tcp_repair.set_repair(sock, tcp_repair.OFF_NO_PROBE)
            assert sock.send(data) == len(data)
            tcp_repair.set_repair(sock, tcp_repair.ON)
        real(sock)

    monkeypatch.setattr(tcp_repair, "disconnect", write_then_disconnect)


def test_written_as_it_ends(hosts: Hosts, asked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told, with how much it is; the others are released, and what the ICI has is right."""
    sock, peer = waits(hosts, b"onetwo")
    other, other_peer = hosts.connect()
    written_at_the_end(monkeypatch, sock, b"too late")
    with hosts.here.entered():
        icis = tcpcp.get_many([sock, other])
        name = tcp_repair.describe(sock)
        with pytest.raises(tcpcp.Moved, match="8 bytes") as caught:
            tcpcp.release_many([sock, other])
        assert caught.value.lost_bytes == 8 and name in str(caught.value)
        assert sock.fileno() == other.fileno() == -1
        made, other = tcpcp.create_many(icis)
        tcpcp.activate_many([made, other])
        for ours, theirs in ((made, peer), (other, other_peer)):
            ours.sendall(b"x")
            assert theirs.recv(10) == b"x"
    assert_no_reset(hosts)


def test_written_as_a_block_ends(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    sock, _peer = waits(hosts, b"onetwo")
    written_at_the_end(monkeypatch, sock, b"too late")
    with hosts.here.entered(), pytest.raises(tcpcp.Moved) as caught, tcpcp.passing([sock]):
        pass
    assert caught.value.lost_bytes == 8 and not hasattr(caught.value, "__notes__")


# --- threads --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alone_on_a_processor() -> Iterator[None]:
    """The calling thread, with those that it starts."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Nothing else gets this processor, as long as the calling thread does not sleep."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("no real-time scheduling here")
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def in_thread(call: Callable[[], object]) -> threading.Thread:
    """In *call*, asleep."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    eventually(lambda: is_in_a_call(thread), "it is in the call")
    return thread


def test_woken_in_recv(hosts: Hosts) -> None:
    """What it reads after get is not read at the destination too."""
    with alone_on_a_processor(), hosts.here.entered():
        tcpcp.prepare()
        assert any(recv_is_refused(hosts) for _ in range(_TRIES))


def recv_is_refused(hosts: Hosts) -> bool:
    """Whether the thread ran between get and release; else the ICI is right."""
    sock, peer = hosts.connect()
    came: list[bytes] = []
    thread = in_thread(lambda: came.append(sock.recv(100)))
    with at_once():
        peer.sendall(b"once")
        ici = tcpcp.get(sock)
    thread.join(5)
    assert came == [b"once"]
    if ici.receive_queue.data == b"":
        tcpcp.release(sock)
        return False
    with pytest.raises(tcpcp.Moved):
        tcpcp.release(sock)
    tcpcp.resume(sock)
    sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.close()
    return True


def test_woken_in_send(hosts: Hosts) -> None:
    """What it writes after get reaches the peer."""
    with alone_on_a_processor(), hosts.here.entered():
        tcpcp.prepare()
        assert any(send_is_refused(hosts) for _ in range(_TRIES))


def send_is_refused(hosts: Hosts) -> bool:
    sock, peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
    written, sizes = [0], []

    def write() -> None:
        with contextlib.suppress(OSError):  # of the first that begins in repair mode
            while True:
                sizes.append(sock.send(b"x" * 500))
                written[0] += sizes[-1]

    thread = in_thread(write)
    peer.setblocking(False)
    received = 0
    with at_once():
        before = tcp_repair.get_outq(sock)
        with contextlib.suppress(BlockingIOError):
            while tcp_repair.get_outq(sock) > before * 0.4:
                received += len(peer.recv(8000))
        ici = tcpcp.get(sock)
    thread.join(5)
    refused = reader.left(sock) != reader.left_in(ici)
    if refused:
        with pytest.raises(tcpcp.Moved):
            tcpcp.release(sock)
        tcpcp.resume(sock)
    else:
        tcpcp.release(sock)
        sock = tcpcp.create(ici)
        tcpcp.activate(sock)
    sock.close()
    peer.settimeout(5)
    while data := peer.recv(100_000):
        received += len(data)
    assert received == written[0]
    return refused


def test_created_while_it_is_released(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread of the program, as soon as the socket is gone: it is isolated until it is activated."""
    real, made = repair_mode.discard, list[socket.socket]()

    def discard_then_create(sock: socket.socket, write_seq: int | None) -> int:
        late = real(sock, write_seq)
        with monkeypatch.context() as others:
            others.setattr(repair_mode, "discard", real)
            made.append(tcpcp.create(ici))
        return late

    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        with monkeypatch.context() as patched:
            patched.setattr(repair_mode, "discard", discard_then_create)
            tcpcp.release(sock)
        peer.sendall(b"early")
        time.sleep(0.05)
        assert tcp_repair.get_inq(made[0]) == 0
        tcpcp.activate(made[0])
        made[0].settimeout(5)
        assert made[0].recv(5) == b"early"
        again = tcpcp.get(made[0])
        tcpcp.release(made[0])
        tcpcp.activate(tcpcp.create(again))
    assert_no_reset(hosts)


@pytest.mark.parametrize("how", (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR))
def test_shut_after_it_was_got(hosts: Hosts, how: int) -> None:
    """The kernel shuts it in repair mode too; it is as it was shut where it goes on."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        tcpcp.get(sock)
        sock.shutdown(how)
        with pytest.raises(tcpcp.Moved):
            tcpcp.release(sock)
        tcpcp.resume(sock)
    if how != socket.SHUT_WR:
        assert sock.recv(1) == b""
    if how != socket.SHUT_RD:
        assert peer.recv(1) == b""
    sock.close()


@pytest.mark.parametrize("end", ("shut", "closed by the peer"))
def test_shut_before_it_was_got(hosts: Hosts, end: str) -> None:
    """That the ICI has."""
    sock, peer = hosts.connect()
    if end == "shut":
        sock.shutdown(socket.SHUT_RD)
    else:
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        with tcpcp.create(ici) as made:
            tcpcp.activate(made)
            assert made.recv(1) == b""
