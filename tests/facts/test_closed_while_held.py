"""A socket that was got or created and is closed instead of released: its two ends are free for others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import pytest
from netns import Hosts
from wire import captured

import tcpcp
from tcpcp.endpoint.flow_table import FlowTable
from tcpcp.endpoint.isolation import Flow
from tcpcp.record.ici import Endpoint

pytestmark = pytest.mark.parametrize("kind", ("v4", "v6"))


def version(kind: str) -> int:
    return 6 if kind == "v6" else 4


def got(sock: socket.socket) -> socket.socket:
    tcpcp.get(sock)
    return sock


def created(sock: socket.socket) -> socket.socket:
    ici = tcpcp.get(sock)
    tcpcp.release(sock)
    return tcpcp.create(ici)


HELD = pytest.mark.parametrize("held", (got, created))
Held = Callable[[socket.socket], socket.socket]


def close_held(hosts: Hosts, kind: str, held: Held) -> tuple[tuple[str, int], tuple[str, int]]:
    """Our end and the peer's of a connection whose socket was closed while it was held; nor has the peer any."""
    sock, peer = hosts.connect(kind)
    ours, theirs = sock.getsockname()[:2], peer.getsockname()[:2]
    with hosts.here.entered():
        held(sock).close()
    abort(peer)
    return ours, theirs


def abort(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def listening(address: tuple[str, int], kind: str) -> socket.socket:
    return socket.create_server(address, family=socket.AF_INET6 if kind == "v6" else socket.AF_INET)


def assert_talk(one: socket.socket, other: socket.socket) -> None:
    for sender, receiver in ((one, other), (other, one)):
        receiver.settimeout(2)
        sender.sendall(b"hello")
        assert receiver.recv(5, socket.MSG_WAITALL) == b"hello"


@HELD
def test_the_peer_connects_again(hosts: Hosts, kind: str, held: Held) -> None:
    ours, theirs = close_held(hosts, kind, held)
    with hosts.here.entered():
        listener = listening(ours, kind)
    with hosts.there.entered():
        peer = socket.create_connection(ours, timeout=0.8, source_address=theirs)
    sock = listener.accept()[0]
    assert_talk(peer, sock)
    with hosts.here.entered():  # and that one can be passed, too
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        again = tcpcp.create(ici)
        tcpcp.activate(again)
    assert_talk(peer, again)
    assert hosts.counters(hosts.here)["TcpOutRsts"] == 0


@HELD
def test_this_host_connects(hosts: Hosts, kind: str, held: Held) -> None:
    ours, theirs = close_held(hosts, kind, held)
    with hosts.there.entered():
        listener = listening(theirs, kind)
    with hosts.here.entered():
        sock = socket.create_connection(theirs, timeout=0.8, source_address=ours)
    assert_talk(sock, listener.accept()[0])
    assert hosts.counters(hosts.here)["TcpOutRsts"] == 0


def test_a_first_syn_does_nothing_to_one_that_is_held(hosts: Hosts, kind: str) -> None:
    """The peer has lost its connection, and tries with the same ends: not a word, and the isolation stays."""
    sock, peer = hosts.connect(kind)
    ours, theirs = sock.getsockname()[:2], peer.getsockname()[:2]
    with hosts.here.entered():
        before = tcpcp.get(sock)
    abort(peer)
    with captured(hosts.there) as wire, hosts.there.entered():
        with pytest.raises(TimeoutError):
            socket.create_connection(ours, timeout=0.5, source_address=theirs)
        assert wire.wait_from(ours[1], 0.3) == []
    with hosts.here.entered():
        tcpcp.renew(sock)
        tcpcp.resume(sock)
        after = tcpcp.get(sock)
    assert (before.rcv_nxt, before.snd_nxt) == (after.rcv_nxt, after.snd_nxt)


@HELD
def test_silent_where_nobody_listens(hosts: Hosts, kind: str, held: Held) -> None:
    ours, theirs = close_held(hosts, kind, held)
    with captured(hosts.there) as wire, hosts.there.entered():
        with pytest.raises(TimeoutError):
            socket.create_connection(ours, timeout=0.5, source_address=theirs)
        assert wire.wait_from(ours[1], 0.3) == []


def test_more_are_held_than_a_set_with_such_rules_takes_by_itself(hosts: Hosts, kind: str) -> None:
    """65535 (net/netfilter/nft_dynset.c nft_dynset_init())."""
    ours, theirs = (ipaddress.ip_address(one[version(kind)]) for one in (hosts.here_ip, hosts.there_ip))
    many = [Flow(Endpoint(ours, 1 + n // 60000), Endpoint(theirs, 1 + n % 60000)) for n in range(70000)]
    with hosts.here.entered():
        table = FlowTable()
        table.hold(many)
        table.let_through(many)
        table.close()
