"""Connections that have ended on this host, and are in the way of those that come, are forgotten in one pass."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
from netns import Hosts, eventually

import tcpcp
from migrate.destination import still_free
from tcpcp.kernel import diag
from tcpcp.record.ici import Ici

MANY = 70
TIME_WAIT = 1 << 6


def ended(hosts: Hosts, kind: str = "v4", *, setup: Callable[[socket.socket], None] | None = None) -> Ici:
    """The ICI, without timestamps, of a connection that is only remembered here now."""
    sock, peer = hosts.connect(kind, setup=setup)
    with hosts.here.entered():
        ici = replace(tcpcp.get(sock), timestamp=None)
        tcpcp.resume(sock)
    sock.close()
    assert peer.recv(1) == b""
    peer.close()
    return ici


def remembered() -> int:
    return len(diag.tcp(states=TIME_WAIT))


@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_the_place_is_made(hosts: Hosts, kind: str) -> None:
    ici = ended(hosts, kind)
    with hosts.here.entered():
        eventually(lambda: remembered() == 1, "it has ended")
        still_free.require((), [ici])
        assert remembered() == 0


def test_one_of_an_interface(hosts: Hosts) -> None:
    """Where another one had the same ends, that of no interface."""

    def bound(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"here0")

    ici = ended(hosts, setup=bound)
    assert ici.device == "here0"
    with hosts.here.entered():
        eventually(lambda: remembered() == 1, "it has ended")
        still_free.require((), [ici])
        assert remembered() == 0


def test_what_is_in_nobodys_way_stays(hosts: Hosts) -> None:
    """With timestamps the kernel finds the place itself; what runs is not ended; others are not looked at."""
    stamped, other = replace(ended(hosts), timestamp=(1, 2)), ended(hosts)
    sock, peer = hosts.connect()
    with hosts.here.entered():
        eventually(lambda: remembered() == 2, "they have ended")
        runs = replace(tcpcp.get(sock), timestamp=None)
        tcpcp.resume(sock)
        still_free.require((), [stamped, runs])
        assert remembered() == 2
    peer.sendall(b"goes on")
    assert sock.recv(10) == b"goes on"
    with hosts.here.entered():
        still_free.require((), [other])
        assert remembered() == 1


def test_many_are_one_pass(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is frozen meanwhile: nothing is made, opened or asked for each of them."""
    icis = [ended(hosts) for _ in range(MANY)]
    gone, made = icis[::10], []

    class Counted(socket.socket):
        def __init__(self, *arguments: object) -> None:
            made.append(arguments)
            super().__init__(*arguments)  # type: ignore[arg-type]

    with hosts.here.entered():
        eventually(lambda: remembered() == MANY, "all have ended")
        still_free.require((), gone)
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socket", Counted)
            still_free.require((), gone)
        assert len(made) == 1
        still_free.require((), icis)
        assert remembered() == 0
