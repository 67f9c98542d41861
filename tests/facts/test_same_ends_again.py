"""A new connection with the two ends of one that was released gets what arrives; late packets draw no reset."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import Hosts
from passing import assert_no_reset
from wire import Wire, captured

import tcpcp
from tcpcp.endpoint import flow_table
from tcpcp.kernel import nft_rules
from tcpcp.record.ici import Endpoint

RST = 0x04
PORT, PEER_PORT = 5432, 40000
KINDS = ("v4", "v6")

pytestmark = pytest.mark.parametrize("kind", KINDS)


def version(kind: str) -> int:
    return 6 if kind == "v6" else 4


def release_made_up(hosts: Hosts, kind: str, port: int, peer_port: int) -> None:
    """As a connection that has ended since, without a word: the peer knows of none."""
    sock, peer = hosts.connect(kind)
    ours, theirs = (ipaddress.ip_address(one[version(kind)]) for one in (hosts.here_ip, hosts.there_ip))
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.resume(sock)
        ends = {"local": Endpoint(ours, port), "peer": Endpoint(theirs, peer_port)}
        tcpcp.release(tcpcp.create(dataclasses.replace(ici, **ends)))
    sock.close()
    peer.close()


def listening(kind: str, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if kind == "v6" else socket.AF_INET
    return socket.create_server((address, port), family=family)


def connecting(address: str, port: int, from_address: str, from_port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=2, source_address=(from_address, from_port))


def assert_talk(one: socket.socket, other: socket.socket) -> None:
    for sender, receiver in ((one, other), (other, one)):
        receiver.settimeout(2)
        sender.sendall(b"hello")
        assert receiver.recv(5, socket.MSG_WAITALL) == b"hello"
    one.close()
    assert other.recv(1) == b""


def test_this_host_connects(hosts: Hosts, kind: str) -> None:
    here, there = (one[version(kind)] for one in (hosts.here_ip, hosts.there_ip))
    with hosts.there.entered():
        listener = listening(kind, there, PORT)
    release_made_up(hosts, kind, PEER_PORT, PORT)
    with hosts.here.entered():
        sock = connecting(there, PORT, here, PEER_PORT)
    assert_talk(sock, listener.accept()[0])
    assert_no_reset(hosts)


@pytest.mark.parametrize("address", ("bound", "any"))
@pytest.mark.parametrize("cookies", ("1", "2"))
def test_this_host_listens(hosts: Hosts, kind: str, address: str, cookies: str) -> None:
    """Also with SYN cookies (2: always), where until the end of the handshake the listener is the only socket."""
    here, there = (one[version(kind)] for one in (hosts.here_ip, hosts.there_ip))
    release_made_up(hosts, kind, PORT, PEER_PORT)
    with hosts.here.entered():
        Path("/proc/sys/net/ipv4/tcp_syncookies").write_text(cookies)
        anywhere = "::" if kind == "v6" else "0.0.0.0"  # noqa: S104
        listener = listening(kind, here if address == "bound" else anywhere, PORT)
    with hosts.there.entered():
        peer = connecting(here, PORT, there, PEER_PORT)
    assert_talk(peer, listener.accept()[0])
    assert_no_reset(hosts)


@pytest.fixture
def elsewhere(hosts: Hosts, kind: str) -> Iterator[tuple[int, int, socket.socket, Wire]]:
    """The two ports, ours first, of a connection that was released here, with what its peer has; and the wire."""
    sock, peer = hosts.connect(kind)
    port, peer_port = sock.getsockname()[1], peer.getsockname()[1]
    with captured(hosts.there) as wire:
        with hosts.here.entered():
            tcpcp.get(sock)
            tcpcp.release(sock)
        wire.segments()
        yield port, peer_port, peer, wire


def assert_no_answer(hosts: Hosts, peer: socket.socket, port: int, wire: Wire) -> None:
    """Nothing is sent from *port* to the peer, whose connection lives."""
    assert wire.wait_from(port, 0.5) == []
    assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert hosts.counters(hosts.there)["TcpEstabResets"] == 0


@pytest.mark.parametrize("address", ("bound", "any"))
def test_late_packets_and_a_listener(
    hosts: Hosts, kind: str, address: str, elsewhere: tuple[int, int, socket.socket, Wire]
) -> None:
    """A server that has passed a connection on listens for others: what comes for that one stays unanswered."""
    port, _, peer, wire = elsewhere
    with hosts.here.entered():
        anywhere = "::" if kind == "v6" else "0.0.0.0"  # noqa: S104
        listener = listening(kind, hosts.here_ip[version(kind)] if address == "bound" else anywhere, port)
    with listener:
        peer.sendall(b"late")
        peer.shutdown(socket.SHUT_WR)
        assert_no_answer(hosts, peer, port, wire)


def test_this_host_connects_while_it_lives_elsewhere(
    hosts: Hosts, kind: str, elsewhere: tuple[int, int, socket.socket, Wire]
) -> None:
    """The peer says what it has, and a socket that connects answers that with the very reset that would end it."""
    port, peer_port, peer, wire = elsewhere
    here, there = (one[version(kind)] for one in (hosts.here_ip, hosts.there_ip))
    with hosts.here.entered(), pytest.raises(TimeoutError):
        connecting(there, peer_port, here, port)
    sent = wire.segments()
    assert [one for one in sent if one.sport == peer_port]
    assert not [one for one in sent if one.sport == port and one.flags & RST]
    assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert hosts.counters(hosts.there)["TcpEstabResets"] == 0


def test_a_bound_socket_keeps_the_port(
    hosts: Hosts, kind: str, elsewhere: tuple[int, int, socket.socket, Wire]
) -> None:
    """connect() does not choose the port of a connection that lives elsewhere, even where there is no other."""
    port, peer_port, peer, _ = elsewhere
    here, there = (one[version(kind)] for one in (hosts.here_ip, hosts.there_ip))
    with hosts.here.entered():
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{port} {port}")
        bound = socket.socket(peer.family)
        bound.bind((here, port))
        with bound, socket.socket(peer.family) as sock, pytest.raises(OSError, match="assign requested"):
            sock.settimeout(2)
            sock.connect((there, peer_port))
    assert hosts.counters(hosts.there)["TcpEstabResets"] == 0


@pytest.mark.parametrize("missing", ("_HAS_SOCKET", "_UNTRACKED", "both"))
def test_a_kernel_without_an_expression(
    hosts: Hosts, kind: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does without that one alone: what comes for the connection stays unanswered, who connects anew waits."""
    here, there = (one[version(kind)] for one in (hosts.here_ip, hosts.there_ip))
    unknown = [nft_rules.nest(1, nft_rules.text(1, "nosuchthing"))]
    for name in ("_HAS_SOCKET", "_UNTRACKED"):
        if missing in (name, "both"):
            monkeypatch.setattr(flow_table, name, unknown)
    with hosts.there.entered():
        listener = listening(kind, there, PORT)
    release_made_up(hosts, kind, PEER_PORT, PORT)
    with hosts.here.entered(), listener:
        if missing == "_UNTRACKED":
            connecting(there, PORT, here, PEER_PORT).close()
        else:
            with pytest.raises(TimeoutError):
                connecting(there, PORT, here, PEER_PORT)
