"""create() with a socket of the program's, or of a connection that is here: refused, with nothing changed."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from netns import Hosts, Namespace
from passing import assert_no_reset
from traces import NOTHING, changed, everything, rules, sent_by

import tcpcp
from tcpcp.record.ici import Ici


@pytest.fixture
def ici(hosts: Hosts) -> Ici:
    sock, _ = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
    return ici


def closed() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


def bound_everywhere() -> socket.socket:
    """The kernel chooses its address when it connects, and nobody can isolate it before."""
    sock = socket.socket()
    sock.bind(("0.0.0.0", 0))
    return sock


def test_bound_to_every_address_of_ipv6(hosts: Hosts) -> None:
    for kind in ("v6", "mapped"):
        sock, _ = hosts.connect(kind)
        with hosts.here.entered(), socket.socket(socket.AF_INET6) as given:
            ici = tcpcp.get(sock)
            tcpcp.release(sock)
            given.bind(("::", 0))
            with pytest.raises(tcpcp.Unsupported, match="every address"):
                tcpcp.create(ici, sock=given)


GIVEN: dict[str, Callable[[Hosts], socket.socket]] = {
    "connected": lambda hosts: hosts.connect()[0],
    "listening": lambda hosts: socket.create_server((hosts.here_ip[4], 0)),
    "unix": lambda hosts: socket.socketpair()[0],
    "udp": lambda hosts: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "IPv6": lambda hosts: socket.socket(socket.AF_INET6),
    "closed": lambda hosts: closed(),
    "bound to every address": lambda hosts: bound_everywhere(),
}


@pytest.mark.parametrize("what", GIVEN)
def test_of_the_wrong_kind(hosts: Hosts, ici: Ici, what: str) -> None:
    """Said before any call is made for it; a live connection goes on."""
    with hosts.here.entered():
        given = GIVEN[what](hosts)
        before = everything(given) if what != "closed" else None
        held, sent = rules(hosts.here), sent_by(hosts, hosts.here)
        with pytest.raises(tcpcp.Unsupported):
            tcpcp.create(ici, sock=given)
        assert before is None or changed(given, before) == {}
        assert (rules(hosts.here), sent_by(hosts, hosts.here)) == (held, sent)
        made = tcpcp.create(ici)  # the ends are free still
        tcpcp.activate(made)
    assert_no_reset(hosts)


def test_of_another_namespace(hosts: Hosts, ici: Ici) -> None:
    elsewhere = Namespace()
    with elsewhere.entered():
        given = socket.socket()
    with hosts.here.entered():
        before, held = everything(given), rules(hosts.here)
        with pytest.raises(tcpcp.OtherNamespace):
            tcpcp.create(ici, sock=given)
        assert changed(given, before) == {}
        assert rules(hosts.here) == held
    assert rules(elsewhere) == NOTHING
    elsewhere.close()


def test_that_was_got(hosts: Hosts, ici: Ici) -> None:
    """It is in repair mode already, for another purpose."""
    other, peer = hosts.connect()
    with hosts.here.entered():
        tcpcp.get(other)
        with pytest.raises(tcpcp.TcpcpError):
            tcpcp.create(ici, sock=other)
        tcpcp.resume(other)
    peer.sendall(b"1")
    assert other.recv(1) == b"1"


@pytest.mark.parametrize("state", ("created", "runs"))
@pytest.mark.parametrize("given", (False, True))
def test_a_connection_that_is_here(hosts: Hosts, ici: Ici, state: str, given: bool) -> None:
    """Said by name; the one that is here, held or running, is as it was, and so is the socket given."""
    with hosts.here.entered():
        made = tcpcp.create(ici)
        if state == "runs":
            tcpcp.activate(made)
        before, held = everything(made), rules(hosts.here)
        with pytest.raises(tcpcp.AddressInUse):
            tcpcp.create(ici, sock=socket.socket() if given else None)
        assert (everything(made), rules(hosts.here)) == (before, held)
        if state == "created":
            tcpcp.activate(made)
    assert_no_reset(hosts)


def test_socks_and_icis_of_different_number(hosts: Hosts, ici: Ici) -> None:
    with hosts.here.entered():
        held = rules(hosts.here)
        with pytest.raises((ValueError, tcpcp.TcpcpError)):
            tcpcp.create_many([ici, ici.at(port=0)], socks=[None])
        assert rules(hosts.here) == held


@pytest.mark.parametrize(
    "call", (tcpcp.activate_many, tcpcp.resume_many, tcpcp.renew_many, tcpcp.release_many)
)
@pytest.mark.parametrize("duplicate", (False, True))
def test_one_twice(hosts: Hosts, call: Callable[[list[socket.socket]], None], duplicate: bool) -> None:
    """Said with nothing changed; get_many says so too."""
    (sock, peer), (other, _) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        tcpcp.get_many([sock, other])
        before, held = everything(sock), rules(hosts.here)
        with pytest.raises(tcpcp.NotGot, match="twice"):
            call([other, sock, sock.dup() if duplicate else sock])
        assert (everything(sock), rules(hosts.here)) == (before, held)
        tcpcp.resume_many([sock, other])
    peer.sendall(b"1")
    assert sock.recv(1) == b"1"
