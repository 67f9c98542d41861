"""A program that closes what it has created, instead of releasing it, is in nobody's way who creates it then."""

from __future__ import annotations

import socket
import subprocess

import pytest
from actor import actor
from netns import Hosts, ip
from passing import assert_no_reset

import tcpcp

pytestmark = pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))

#: As administrators have them: what no peer sends is dropped before all else; nothing leaves that is not meant to.
_STRICT = {
    "no bogus flags": """chain c { type filter hook prerouting priority -300;
        tcp flags & (fin|syn) == fin|syn drop; tcp flags & (syn|rst) == syn|rst drop; };""",
    "nothing to itself": """chain c { type filter hook output priority 0; policy drop; oif here0 accept; };""",
    "nothing untracked": """chain in { type filter hook input priority 0; policy drop; iif here0 accept; };
        chain out { type filter hook output priority 0; meta l4proto { tcp, udp } ct state untracked drop; };""",
}


@pytest.mark.parametrize("rules", _STRICT.values(), ids=_STRICT)
def test_taken_back_behind_a_firewall(hosts: Hosts, kind: str, rules: str) -> None:
    sock, peer = hosts.connect(kind)
    with hosts.here.entered():
        subprocess.run(["nft", f"table inet strict {{ {rules} }};"], check=True)
    _take_back_from_another(hosts, sock, peer)


def test_taken_back_without_the_loopback_interface(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    with hosts.here.entered():
        ip("link set lo down")
    _take_back_from_another(hosts, sock, peer)


def _take_back_from_another(hosts: Hosts, sock: socket.socket, peer: socket.socket) -> None:
    with actor(hosts.here) as other, hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        other.do("create", tcpcp.dumps(ici).hex())
        other.do("close")
        sock = tcpcp.create(ici)
        tcpcp.renew(sock)
        tcpcp.activate(sock)
        sock.sendall(b"hello")
        peer.settimeout(5)
        assert peer.recv(5) == b"hello"
    assert_no_reset(hosts)


def test_taken_over_without_raw_sockets(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    with actor(hosts.here) as one, actor(hosts.here, raw=False) as other, hosts.here.entered():
        image = tcpcp.dumps(tcpcp.get(sock)).hex()
        tcpcp.release(sock)
        one.do("create", image)
        one.do("close")
        other.take(image)
        other.answers(peer, within_s=5)
    assert_no_reset(hosts)


def test_taken_back(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    with actor(hosts.here) as one, actor(hosts.here) as other, hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        image = tcpcp.dumps(ici).hex()
        for failing in (one, other):
            failing.do("create", image)
            failing.do("close")
        sock = tcpcp.create(ici)
        tcpcp.renew(sock)  # its own isolation is not forgotten with theirs
        tcpcp.activate(sock)
        for sender, receiver in ((sock, peer), (peer, sock)):
            receiver.settimeout(2)
            sender.sendall(b"hello")
            assert receiver.recv(5) == b"hello"
    assert_no_reset(hosts)


def test_refused_while_it_is_open(hosts: Hosts, kind: str) -> None:
    sock, _peer = hosts.connect(kind)
    with actor(hosts.here) as other, hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        other.do("create", tcpcp.dumps(ici).hex())
        with pytest.raises(tcpcp.AddressInUse, match="another program on this host"):
            tcpcp.create(ici)
        other.do("renew")


def test_it_says_what_is_in_the_way(hosts: Hosts, kind: str) -> None:
    """A filter before all others, by which nothing leaves: the other program keeps it, and nothing is left here."""
    sock, _peer = hosts.connect(kind)
    drop = "chain c { type filter hook output priority -400; meta l4proto udp drop; };"
    with actor(hosts.here) as other, hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        other.do("create", tcpcp.dumps(ici).hex())
        other.do("close")
        subprocess.run(["nft", f"table inet strict {{ {drop} }};"], check=True)
        with pytest.raises(tcpcp.IsolationError, match=r"did not leave.* 0xc114.* hook output"):
            tcpcp.create(ici)
        subprocess.run(["nft", "delete table inet strict"], check=True)
        tcpcp.activate(tcpcp.create(ici))
    assert_no_reset(hosts)
