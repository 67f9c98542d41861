"""A listener moves: what waits in its accept queue is passed, who knocks meanwhile waits, nobody is refused."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import subprocess
import threading
import time
from asyncio.trsock import TransportSocket
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from netns import Hosts, eventually
from passing import assert_no_reset, deaf

from migrate.gap.lease import Lease
from migrate.origin import accept_queues
from tcpcp import drain, hold_new
from tcpcp.endpoint import calls, listener
from tcpcp.endpoint.isolation import Isolation
from tcpcp.errors import OtherNamespace, Unsupported
from tcpcp.kernel import diag
from tcpcp.record.ici import State

FAMILIES = {"v4": socket.AF_INET, "v6": socket.AF_INET6, "dual": socket.AF_INET6}
WAITING = 5


def listening(hosts: Hosts, kind: str, port: int = 0) -> socket.socket:
    """A listener on *here*, at its address, or for dual at any address of both families."""
    with hosts.here.entered():
        made = socket.socket(FAMILIES[kind])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::" if kind == "dual" else hosts.here_ip[6 if kind == "v6" else 4], port))
    made.listen(50)
    return made


def connecting(hosts: Hosts, kind: str, port: int) -> socket.socket:
    """A peer that has sent its SYN, with whatever came of it."""
    ipv6 = kind == "v6"
    with hosts.there.entered():
        made = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
    made.setblocking(False)
    assert made.connect_ex((hosts.here_ip[6 if ipv6 else 4], port)) == errno.EINPROGRESS
    return made


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_listener_moves(hosts: Hosts, kind: str) -> None:
    old = listening(hosts, kind)
    port = old.getsockname()[1]
    waiting = [connecting(hosts, kind, port) for _ in range(WAITING)]
    for number, peer in enumerate(waiting):
        eventually(lambda peer=peer: peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "connected")
        peer.setblocking(True)
        peer.sendall(f"{number}".encode())
    with hosts.here.entered():
        held = hold_new(old)
        late = connecting(hosts, kind, port)
        accepted = drain(old)
        assert len(accepted) == WAITING
        icis = calls.get_many(accepted)
        old.close()
        calls.release_many(accepted)
        made = calls.create_many(icis)
        calls.activate_many(made)
    new = listening(hosts, kind, port)
    with hosts.here.entered():
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        held.release()
    by_peer = {peer.getsockname()[1]: number for number, peer in enumerate(waiting)}
    for one in made:
        number = by_peer[one.getpeername()[1]]
        one.setblocking(True)
        assert one.recv(10) == f"{number}".encode()
        one.sendall(b"served")
        assert waiting[number].recv(10) == b"served"
    new.settimeout(5)
    _, name = new.accept()  # the SYN that was held, sent again
    assert name[1] == late.getsockname()[1]
    assert_no_reset(hosts)


def test_a_handshake_under_way_is_waited_for(hosts: Hosts) -> None:
    """Its SYN was before the hold; its last segment comes when the peer hears the SYN-ACK, sent again."""
    old = listening(hosts, "v4")
    port = old.getsockname()[1]
    with deaf(hosts.there):
        late = connecting(hosts, "v4", port)
        with hosts.here.entered():
            eventually(lambda: listener.handshakes(old) == 1, "a handshake is under way")
            held = hold_new(old)
    with hosts.here.entered():
        accepted = drain(old, deadline_s=10)
        held.release()
    assert [one.getpeername() for one in accepted] == [late.getsockname()]


def test_there_is_an_end_to_waiting(hosts: Hosts) -> None:
    old = listening(hosts, "v4")
    with deaf(hosts.there):
        connecting(hosts, "v4", old.getsockname()[1])
        with hosts.here.entered():
            eventually(lambda: listener.handshakes(old) == 1, "a handshake is under way")
            held = hold_new(old)
            waiting = drain(old, deadline_s=0.05)
            assert (waiting, waiting.left) == ([], 1)
            held.release()


def test_a_client_that_has_not_spoken_yet(hosts: Hosts) -> None:
    """TCP_DEFER_ACCEPT: it is connected, and the kernel keeps it from the listener."""
    old = listening(hosts, "v4")
    old.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    before = old.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
    with hosts.there.entered():
        peer = socket.create_connection(old.getsockname())
    with hosts.here.entered():
        held = hold_new(old)
        waiting = drain(old, deadline_s=0.05)
        assert (waiting, waiting.left) == ([], 1)
        assert old.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == before
        waiting = drain(old)
        assert (len(waiting), waiting.left) == (1, 0)
        assert old.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == before
        (ici,) = calls.get_many(waiting)
        old.close()
        calls.release_many(waiting)
        made = calls.create(ici)
        calls.activate(made)
        held.release()
    peer.sendall(b"GET")
    made.setblocking(True)
    assert made.recv(10) == b"GET"
    assert_no_reset(hosts)


def test_one_that_has_spoken_comes_at_once(hosts: Hosts) -> None:
    old = listening(hosts, "v4")
    old.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    with hosts.there.entered():
        peer = socket.create_connection(old.getsockname())
    peer.sendall(b"GET")
    eventually(lambda: select.select([old], [], [], 0)[0], "it has arrived")
    with hosts.here.entered():
        waiting = drain(old, deadline_s=0)
    assert (len(waiting), waiting.left) == (1, 0)


@pytest.mark.parametrize("blocking", [True, False])
def test_what_stands_for_a_listener(hosts: Hosts, blocking: bool) -> None:
    """asyncio gives its servers' sockets away as such only; what it is set to stays."""
    old = listening(hosts, "v4")
    old.setblocking(blocking)
    with hosts.there.entered():
        socket.create_connection(old.getsockname())
    with hosts.here.entered():
        held = hold_new(TransportSocket(old))
        assert len(drain(TransportSocket(old))) == 1
        held.release()
    assert os.get_blocking(old.fileno()) is blocking


class Watched(socket.socket):
    """Notes what is changed of how its calls wait, for all threads that use it."""

    changed: ClassVar[list[object]] = []

    def settimeout(self, value: float | None) -> None:
        self.changed.append(value)
        super().settimeout(value)

    def setblocking(self, flag: bool) -> None:
        self.changed.append(flag)
        super().setblocking(flag)


def set_blocking(number: int, flag: bool) -> None:
    """As os.set_blocking(), for who watches that."""
    flags = fcntl.fcntl(number, fcntl.F_GETFL)
    fcntl.fcntl(number, fcntl.F_SETFL, flags & ~os.O_NONBLOCK if flag else flags | os.O_NONBLOCK)
    Watched.changed.append((number, flag))


@pytest.mark.parametrize("timeout_s", [None, 5.0, 0.0])
def test_how_others_wait_for_connections(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, timeout_s: float | None
) -> None:
    """With a timeout nothing changes; without one the open file does not block while one that waits is accepted."""
    monkeypatch.setattr(os, "set_blocking", set_blocking)
    plain = listening(hosts, "v4")
    with hosts.here.entered(), Watched(fileno=plain.detach()) as old:
        old.settimeout(timeout_s)
        Watched.changed.clear()
        assert drain(old) == []
        assert Watched.changed == []
        with socket.create_connection(old.getsockname()):
            assert len(drain(old)) == 1
        number = old.fileno()
        assert Watched.changed == ([(number, False), (number, True)] if timeout_s is None else [])
        assert (old.gettimeout(), os.get_blocking(number)) == (timeout_s, timeout_s is None)


def test_who_waits_already_waits_on(hosts: Hosts) -> None:
    """A call that blocks and has begun before gets what comes later."""
    old, came = listening(hosts, "v4"), []
    waiting = threading.Thread(target=lambda: came.append(old.accept()))
    waiting.start()
    task = Path(f"/proc/self/task/{waiting.native_id}/wchan")
    eventually(lambda: "accept" in task.read_text(), "it waits")
    with hosts.here.entered():
        os.set_blocking(old.fileno(), False)  # as drain() does, for longer
        assert drain(old) == []
        os.set_blocking(old.fileno(), True)
        assert not came
        with socket.create_connection(old.getsockname()):
            waiting.join(5)
    assert len(came) == 1


def test_only_listeners(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    with hosts.here.entered():
        for call in (drain, hold_new):
            with pytest.raises(Unsupported, match="not a listening"):
                call(sock)


def test_of_another_network_namespace(hosts: Hosts) -> None:
    """The filter would be made here, and handshakes be looked for here: what waits there is as it was."""
    old = listening(hosts, "v4")
    peer = connecting(hosts, "v4", old.getsockname()[1])
    eventually(lambda: select.select([old], [], [], 0)[0], "it has arrived")
    with hosts.there.entered():
        for call in (hold_new, drain):
            with pytest.raises(OtherNamespace, match="setns"):
                call(old)
    assert old.accept()[1] == peer.getsockname()


def test_the_table_knows_handshakes(hosts: Hosts) -> None:
    """inet_diag lists a handshake as SYN_RECV, although its socket is a small one of another kind."""
    old = listening(hosts, "v4")
    with deaf(hosts.there):
        connecting(hosts, "v4", old.getsockname()[1])
        with hosts.here.entered():
            eventually(lambda: diag.tcp(states=1 << State.SYN_RECV), "in the table")


def set_cookies(hosts: Hosts, setting: str) -> None:
    with hosts.here.entered():
        Path("/proc/sys/net/ipv4/tcp_syncookies").write_text(setting)


@contextlib.contextmanager
def last_segments_lost(hosts: Hosts) -> Iterator[None]:
    """A client takes itself for connected, and what says so does not leave its host."""
    chain = "chain o { type filter hook output priority 0; tcp flags & (syn|ack) == ack drop; }"
    with hosts.there.entered():
        subprocess.run(["nft", f"table inet lost {{ {chain}; }}"], check=True)
    yield
    with hosts.there.entered():
        subprocess.run(["nft", "delete table inet lost"], check=True)


def test_a_handshake_that_only_the_client_knows_of(hosts: Hosts) -> None:
    """SYN cookies: the listener does not move before it may have come, and who cannot wait is told."""
    set_cookies(hosts, "2")
    old = listening(hosts, "v4")
    with last_segments_lost(hosts):
        with hosts.there.entered():
            peer = socket.create_connection(old.getsockname())
        with hosts.here.entered():
            held = hold_new(old)
            waiting = drain(old, deadline_s=0.05)
            assert (waiting, waiting.left, waiting.unknown) == ([], 0, True)
    peer.sendall(b"GET")
    with hosts.here.entered():
        waiting = drain(old, deadline_s=3)
        assert (len(waiting), waiting.left, waiting.unknown) == (1, 0, True)
        held.release()
    assert waiting[0].recv(10) == b"GET"
    assert_no_reset(hosts)


def test_a_queue_that_was_full(hosts: Hosts) -> None:
    """Then a host gives cookies that else gives none; the kernel says how many, not when."""
    old = listening(hosts, "v4")
    with hosts.here.entered():
        assert not drain(old, deadline_s=3).unknown
    old.listen(1)
    with deaf(hosts.there):
        peers = [connecting(hosts, "v4", old.getsockname()[1]) for _ in range(4)]
        eventually(lambda: hosts.counters(hosts.here)["TcpExtSyncookiesSent"], f"a cookie, of {len(peers)}")
    with hosts.here.entered():
        assert drain(old, deadline_s=0).unknown
        set_cookies(hosts, "0")
        assert not drain(old, deadline_s=0).unknown


def test_no_need_to_wait(hosts: Hosts) -> None:
    """Where it is known that there is no handshake, drain() is over at once, however long it might take."""
    old = listening(hosts, "v4")
    with hosts.here.entered():
        begun = time.monotonic()
        assert not drain(old, deadline_s=60).unknown
    assert time.monotonic() - begun < 30


def test_the_driver_waits_for_it_too(hosts: Hosts) -> None:
    """Until the process has accepted what comes of a cookie in the time that a handshake is given."""
    set_cookies(hosts, "2")
    old, accepted = listening(hosts, "v4"), []
    old.setblocking(False)
    with last_segments_lost(hosts), hosts.there.entered():
        peer = socket.create_connection(old.getsockname())

    def heed() -> None:
        if not accepted:
            peer.sendall(b"G")
            with contextlib.suppress(BlockingIOError):
                accepted.append(old.accept()[0])

    with hosts.here.entered():
        isolation = Isolation("cookies")
        isolation.prepare()
        accept_queues.drain(Lease(isolation), [os.getpid()], time.monotonic() + 20, lambda _: None, heed)
        isolation.release()
    assert [one.getpeername() for one in accepted] == [peer.getsockname()]
