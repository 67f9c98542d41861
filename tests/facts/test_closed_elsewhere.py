"""A program that closes what it has created, instead of releasing it, is in nobody's way who creates it then."""

from __future__ import annotations

import pytest
from actor import actor
from netns import Hosts
from passing import assert_no_reset

import tcpcp

pytestmark = pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))


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
