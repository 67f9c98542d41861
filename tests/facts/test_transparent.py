"""Connections whose local address is not this host's: of a transparent proxy in front of a server elsewhere."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest
from netns import Hosts, Namespace, ip
from passing import state_of, wait_state

import tcpcp
from tcpcp import Unfed
from tcpcp.endpoint import raw_segment
from tcpcp.endpoint.socket_ends import address
from tcpcp.record.ici import Endpoint, State

_IP_TRANSPARENT = 19
_SERVER = "10.60.0.1"
_TPROXY = f"""
table ip divert {{ chain c {{ type filter hook prerouting priority mangle;
    socket transparent 1 meta mark set 1 accept;
    ip daddr {_SERVER} tcp dport 80 tproxy to :8080 meta mark set 1 accept; }}; }}
"""


@pytest.fixture
def server(hosts: Hosts) -> Iterator[Namespace]:
    """A host behind *here*, with the address that the peer believes it talks to."""
    beyond = Namespace()
    with hosts.here.entered():
        ip(f"link add behind0 type veth peer name server0 netns {beyond.path}")
        ip("link set behind0 up")
        ip("addr add 10.60.0.254/24 dev behind0")
        subprocess.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        ip("rule add fwmark 1 lookup 100")
        ip("route add local 0.0.0.0/0 dev lo table 100")
        subprocess.run(["nft", _TPROXY], check=True)
    with beyond.entered():
        ip("link set server0 up")
        ip(f"addr add {_SERVER}/24 dev server0")
        ip("route add default via 10.60.0.254")
    yield beyond
    beyond.close()


@pytest.fixture
def ends(hosts: Hosts, server: Namespace) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The proxy's end, which has the server's address, and the peer's; three bytes wait at the former."""
    with hosts.here.entered(), socket.socket() as listener:
        listener.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
        listener.bind(("0.0.0.0", 8080))
        listener.listen()
        with hosts.there.entered():
            ip("route add 10.60.0.0/24 via 10.9.0.1")
            peer = socket.create_connection((_SERVER, 80), timeout=5)
        sock, _ = listener.accept()
    assert sock.getsockname() == (_SERVER, 80)
    peer.sendall(b"abc")
    yield sock, peer
    sock.close()
    peer.close()


def goes_on(sock: socket.socket, peer: socket.socket) -> None:
    assert sock.recv(3, socket.MSG_WAITALL) == b"abc"
    sock.sendall(b"answer")
    assert peer.recv(6, socket.MSG_WAITALL) == b"answer"


def untouched(hosts: Hosts, server: Namespace) -> None:
    """The server, which would have reset the peer, has heard nothing."""
    counters = hosts.counters(server)
    assert (counters["TcpInSegs"], counters["TcpOutRsts"]) == (0, 0)


def test_passed(hosts: Hosts, server: Namespace, ends: tuple[socket.socket, socket.socket]) -> None:
    sock, peer = ends
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        made = tcpcp.create(ici, same_path=True)
        tcpcp.activate(made)
    goes_on(made, peer)
    untouched(hosts, server)


def test_taken_back(hosts: Hosts, server: Namespace, ends: tuple[socket.socket, socket.socket]) -> None:
    sock, peer = ends
    with hosts.here.entered():
        tcpcp.get(sock)
        tcpcp.activate(sock)
    goes_on(sock, peer)
    untouched(hosts, server)


def test_half_closed_is_refused(
    hosts: Hosts, server: Namespace, ends: tuple[socket.socket, socket.socket]
) -> None:
    sock, peer = ends
    peer.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSE_WAIT)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.resume(sock)
        assert state_of(sock) is State.CLOSE_WAIT
        with pytest.raises(tcpcp.AddressInUse):  # the same connection, which lives
            tcpcp.create(ici)
        tcpcp.get(sock)
        tcpcp.release(sock)
        with pytest.raises(Unfed, match="would leave it"):
            tcpcp.create(ici)
    untouched(hosts, server)


@pytest.mark.parametrize("where", ["10.9.0.1", "fd09::1", "127.0.0.1"])
def test_an_address_of_this_host(hosts: Hosts, where: str) -> None:
    with hosts.here.entered():
        assert raw_segment.stays_here(Endpoint(address(where), 80))


@pytest.mark.parametrize("where", ["10.9.0.2", "fd09::2", "10.99.0.1", "fd99::1"])
def test_one_that_is_not(hosts: Hosts, where: str) -> None:
    with hosts.here.entered():
        assert not raw_segment.stays_here(Endpoint(address(where), 80))
