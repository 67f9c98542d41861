"""What both sides have closed is passed to where its own TIME_WAIT is, also without timestamps."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from netns import Hosts
from passing import wait_state
from wire import captured

import tcpcp
from tcpcp.record.ici import Ici, State

pytestmark = pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))


def connect(hosts: Hosts, kind: str) -> tuple[socket.socket, socket.socket]:
    for namespace in (hosts.here, hosts.there):
        with namespace.entered():
            Path("/proc/sys/net/ipv4/tcp_timestamps").write_text("0")
    return hosts.connect(kind)


def end(sock: socket.socket, peer: socket.socket) -> None:
    """This host closes first, so that the TIME_WAIT is here; what the peer has sent last is not read."""
    sock.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    peer.sendall(b"answer")
    peer.close()
    wait_state(sock, State.CLOSE)


def image(hosts: Hosts, sock: socket.socket) -> Ici:
    with hosts.here.entered():
        ici = tcpcp.get(sock)
    assert ici.state is State.CLOSE
    return ici


@pytest.mark.parametrize("released", (True, False))
def test_there_and_back(hosts: Hosts, kind: str, released: bool) -> None:
    sock, peer = connect(hosts, kind)
    port = sock.getsockname()[1]
    end(sock, peer)
    with captured(hosts.there) as wire:
        wire.segments()
        for _ in range(3):
            ici = image(hosts, sock)
            with hosts.here.entered():
                if released:
                    tcpcp.release(sock)
                sock = tcpcp.create(ici)
                tcpcp.activate(sock)
        assert wire.wait_from(port, 0.3) == []
    assert sock.recv(10) == b"answer"
    assert sock.recv(10) == b""


def test_what_has_not_ended_is_refused_and_told_why(hosts: Hosts, kind: str) -> None:
    """It may be of before the end, so the TIME_WAIT stays."""
    sock, peer = connect(hosts, kind)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.resume(sock)
    end(sock, peer)
    sock.close()
    with hosts.here.entered():
        for _ in range(2):
            with pytest.raises(
                tcpcp.AddressInUse, match=r"has ended on this host.* [0-9]+ s more \(TIME_WAIT\)"
            ):
                tcpcp.create(ici)
