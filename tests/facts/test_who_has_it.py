"""Threads of one process at the same connection: who has it, and from when on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from netns import Hosts
from traces import is_held

import tcpcp
from tcpcp.endpoint import builder, calls, twins
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Ici

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
