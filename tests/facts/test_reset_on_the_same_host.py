"""From one process of a host to another: the resets that the host owes the peer leave it, and no others."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest
from actor import Actor, actor
from netns import Hosts, eventually
from wire import captured

import tcpcp
from tcpcp.endpoint import raw_segment, socket_ends
from tcpcp.kernel import nft

RST = 0x04
KINDS = ("v4", "v6")
#: Another filter, behind ours, that counts resets by the priority of their buffers.
JUDGE = """
add table inet judge
add chain inet judge output {{ type filter hook output priority 0; policy accept; }}
add rule inet judge output meta l4proto != tcp accept
add rule inet judge output tcp flags != rst accept
add rule inet judge output meta priority {usual} counter comment "as before"
add rule inet judge output meta priority != {usual} counter
"""


@pytest.fixture
def a(hosts: Hosts, sock: socket.socket) -> Iterator[Actor]:
    """A process that has the connection first, alone."""
    with actor(hosts.here, sock) as one:
        sock.close()
        yield one


@pytest.fixture
def connection(hosts: Hosts, kind: str) -> tuple[socket.socket, socket.socket]:
    return hosts.connect(kind)


@pytest.fixture
def sock(connection: tuple[socket.socket, socket.socket]) -> socket.socket:
    return connection[0]


@pytest.fixture
def peer(connection: tuple[socket.socket, socket.socket]) -> socket.socket:
    return connection[1]


def taken(hosts: Hosts, image: str) -> socket.socket:
    with hosts.here.entered():
        made = tcpcp.create(tcpcp.loads(bytes.fromhex(image)))
        tcpcp.activate(made)
    return made


def ended(one: Actor) -> None:
    one.process.communicate(timeout=5)


def assert_reset(hosts: Hosts, made: socket.socket, peer: socket.socket) -> None:
    """It closes; the peer, which has not read that yet, sends, and is told at once."""
    port = made.getsockname()[1]
    made.close()
    eventually(lambda: peer.recv(1, socket.MSG_PEEK) == b"", "the peer has the FIN")
    with captured(hosts.there) as wire:
        peer.sendall(b"next request")
        assert [one.flags for one in wire.wait_from(port, 0.5)] == [RST]


@pytest.mark.parametrize("who", ("lives", "has ended", "ends later", "is followed by another"))
@pytest.mark.parametrize("kind", KINDS)
def test_who_takes_over_and_closes_owes_a_reset(
    hosts: Hosts, a: Actor, peer: socket.socket, who: str
) -> None:
    """Whatever becomes of the process that passed it on, whose table has it among those that live elsewhere."""
    image = a.pass_away()
    if who == "has ended":
        ended(a)
    made = taken(hosts, image)
    if who in ("ends later", "is followed by another"):
        ended(a)
    with actor(hosts.here) as third:
        if who == "is followed by another":
            third.do("prepare")  # takes over what has been left
        assert_reset(hosts, made, peer)


@pytest.mark.parametrize("kind", KINDS)
def test_who_passed_it_on_takes_it_back(hosts: Hosts, a: Actor, peer: socket.socket) -> None:
    """Both have it among those that they have passed on."""
    with actor(hosts.here) as b:
        b.take(a.pass_away())
        a.take(b.pass_away())
        assert_reset(hosts, taken(hosts, a.pass_away()), peer)


@pytest.mark.parametrize("kind", KINDS)
def test_it_leaves_again(hosts: Hosts, a: Actor, peer: socket.socket) -> None:
    """The second time to another host: a packet that was past the filter draws a reset, which does not leave."""
    made = taken(hosts, a.pass_away())
    local, its_peer, _ = socket_ends.ends(made)
    with hosts.here.entered():
        ici = tcpcp.get(made)
        tcpcp.release(made)
    late = raw_segment.build(
        its_peer, local, seq=ici.rcv_nxt, ack=ici.snd_nxt, flags=raw_segment.ACK, window=100
    )
    with captured(hosts.here) as wire:
        with hosts.here.entered():
            raw_segment.feed(late, local)
        eventually(lambda: hosts.counters(hosts.here)["TcpOutRsts"] == 1, "answered")
        assert [one for one in wire.segments() if one.sport == local.port] == []
    peer.sendall(b"?")
    assert hosts.counters(hosts.there)["TcpEstabResets"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_reset_is_as_without_passing(hosts: Hosts, a: Actor, peer: socket.socket, kind: str) -> None:
    """Its priority, by which other filters and queues tell packets apart: of the socket, and 0 for IPv4."""
    made = taken(hosts, a.pass_away())
    made.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)
    with hosts.here.entered():
        nft.run(JUDGE.format(usual="0:5" if kind == "v6" else "none"))
    assert_reset(hosts, made, peer)
    with hosts.here.entered():
        listed = subprocess.run(
            ["nft", "list", "table", "inet", "judge"], check=True, capture_output=True, text=True
        ).stdout
    assert "packets 1" in next(line for line in listed.splitlines() if "as before" in line)
    assert listed.count("packets 1") == 1
