"""Threads of one process at the same connection: who has it, and from when on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from netns import Hosts, eventually
from traces import is_held, rules

import tcpcp
from tcpcp.endpoint import builder, calls, twins
from tcpcp.endpoint.flow_table import FlowTable
from tcpcp.kernel import diag, tcp_repair
from tcpcp.record.ici import Ici

KINDS = ("v4", "v6", "mapped")
LETS_GO = (tcpcp.release, tcpcp.resume, tcpcp.activate, tcpcp.renew)


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread; a new one is in the network namespace of the one that has it begin."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def passed(sock: socket.socket) -> Ici:
    ici = tcpcp.get(sock)
    tcpcp.release(sock)
    return ici


def in_between(
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    name: str,
    other: ThreadPoolExecutor,
    call: Callable[[], object],
) -> None:
    """As soon as *where.name* has done its work, *call* is called in another thread, which says NotGot."""
    works = getattr(where, name)

    def and_then(*args: object, **named: object) -> object:
        result = works(*args, **named)
        with pytest.raises(tcpcp.NotGot):
            other.submit(call).result(10)
        return result

    monkeypatch.setattr(where, name, and_then)


@pytest.mark.parametrize("call", LETS_GO)
@pytest.mark.parametrize("where", (twins, calls), ids=("before it is isolated", "when it is read"))
def test_not_got_yet(
    hosts: Hosts,
    other: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    call: Callable[[socket.socket], None],
) -> None:
    """What get is at work on nobody lets go: who releases takes the connection for the destination's."""
    sock, peer = hosts.connect()
    name = "require_none" if where is twins else "_stand_still"
    in_between(monkeypatch, where, name, other, lambda: call(sock))
    with hosts.here.entered():
        tcpcp.get(sock)
        assert tcp_repair.get_repair(sock)
        assert is_held(peer)
        tcpcp.resume(sock)
    assert not tcp_repair.get_repair(sock)
    sock.sendall(b"goes on")
    assert peer.recv(10) == b"goes on"


@pytest.mark.parametrize("call", LETS_GO)
def test_not_created_yet(
    hosts: Hosts,
    other: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[socket.socket], None],
) -> None:
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = passed(sock)
        given = socket.socket()
        in_between(monkeypatch, builder, "complete", other, lambda: call(given))
        tcpcp.create(ici, sock=given)
        tcpcp.activate(given)
    given.sendall(b"goes on")
    assert peer.recv(10) == b"goes on"


class Stopped:
    """A thread that creates *ici*, and stands when that is isolated and its socket not connected."""

    def __init__(self, pool: ThreadPoolExecutor, ici: Ici, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stands, self._goes = threading.Event(), threading.Event()
        self._works = calls._complete_all
        self._error: Exception | None = None
        monkeypatch.setattr(calls, "_complete_all", self._stop)
        self.result: Future[socket.socket] = pool.submit(tcpcp.create, ici)
        assert self._stands.wait(10)
        monkeypatch.setattr(calls, "_complete_all", self._works)

    def _stop(self, *args: object) -> None:
        self._stands.set()
        assert self._goes.wait(10)
        if self._error:
            raise self._error
        self._works(*args)  # type: ignore[arg-type]

    def go(self, error: Exception | None = None) -> Future[socket.socket]:
        """:param error: what is to go wrong."""
        self._error = error
        self._goes.set()
        return self.result


@pytest.mark.parametrize("kind", KINDS)
def test_two_threads_create_it(
    hosts: Hosts, other: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """An ICI that has come twice: one gets the connection, and the other none of its isolation."""
    sock, peer = hosts.connect(kind)
    with hosts.here.entered():
        ici = passed(sock)
        late = Stopped(other, ici, monkeypatch)
        made = tcpcp.create(ici)
        with pytest.raises(tcpcp.AddressInUse):
            late.go().result(10)
        assert is_held(peer)
        tcpcp.renew(made)
        tcpcp.activate(made)
    eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged")
    assert rules(hosts.here).holding == 0


def test_one_comes_to_nothing_before_the_other(
    hosts: Hosts, other: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has isolated it, the second finds it so, and only the second creates it."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = passed(sock)
        first = Stopped(other, ici, monkeypatch)
        with ThreadPoolExecutor(1) as another:
            second = Stopped(another, ici, monkeypatch)
            with pytest.raises(tcpcp.Unsupported):
                first.go(tcpcp.Unsupported("")).result(10)
            made = second.go().result(10)
        assert is_held(peer)
        tcpcp.activate(made)
        eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged")


@pytest.mark.parametrize("error", (None, tcpcp.Unsupported("")), ids=("created", "nothing comes of it"))
def test_released_while_another_creates_it(
    hosts: Hosts, other: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """It stays isolated for who creates it; and unanswered as after any release should nothing come of that."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = passed(sock)
        late = Stopped(other, ici, monkeypatch)
        tcpcp.release(tcpcp.create(ici))
        if error is None:
            made = late.go().result(10)
        else:
            with pytest.raises(tcpcp.Unsupported):
                late.go(error).result(10)
            assert is_held(peer)
            made = tcpcp.create(ici)
        tcpcp.renew(made)
        assert is_held(peer)
        tcpcp.activate(made)
    eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged")
    assert rules(hosts.here).holding == 0
    assert hosts.counters(hosts.there)["TcpEstabResets"] == 0


def test_nothing_comes_of_it_and_of_the_other(
    hosts: Hosts, other: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose isolation the second has found was an attempt too: nothing of it is left."""
    sock, _ = hosts.connect()
    with hosts.here.entered():
        ici = passed(sock)
        before = rules(hosts.here).holding
        first = Stopped(other, ici, monkeypatch)
        with ThreadPoolExecutor(1) as another:
            second = Stopped(another, ici, monkeypatch)
            for one in (first, second):
                with pytest.raises(tcpcp.Unsupported):
                    one.go(tcpcp.Unsupported("")).result(10)
        assert rules(hosts.here).holding == before


@pytest.mark.parametrize("got", (False, True), ids=("runs", "got"))
@pytest.mark.parametrize("kind", KINDS)
def test_an_ici_that_comes_again(hosts: Hosts, monkeypatch: pytest.MonkeyPatch, kind: str, got: bool) -> None:
    """Its connection lives here, and is not isolated for a moment because of it, nor let through."""
    sock, peer = hosts.connect(kind)
    with hosts.here.entered():
        ici = passed(sock)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
        if got:
            tcpcp.get(made)
        with monkeypatch.context() as patched:
            patched.setattr(FlowTable, "hold", lambda *_: pytest.fail("isolated"))
            with pytest.raises(tcpcp.AddressInUse):
                tcpcp.create(ici)
        if got:
            assert is_held(peer)
            tcpcp.renew(made)
            tcpcp.resume(made)
    made.sendall(b"goes on")
    assert peer.recv(10) == b"goes on"


@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_which_ends_are_taken(hosts: Hosts, kind: str) -> None:
    """By what connects, or runs; one that listens has none. More are asked for than have room in one answer."""
    sock, peer = hosts.connect(kind)
    with hosts.here.entered():
        flow = calls.flow_of(sock)
        listener = socket.create_server(sock.getsockname()[:2], family=sock.family)
        local, there = (flow.local.packed, flow.local.port), flow.peer.packed
        asked = [((local, (there, port)), 0) for port in range(1, 101)]
        asked[70] = ((local, (there, flow.peer.port)), 0)
        assert diag.connected(asked) == [70]
        assert diag.connected([]) == []
        listener.close()
    peer.close()
