"""Isolation lasts a minute, a second here: what each call says when it has run out, and that it can be renewed."""

from __future__ import annotations

import time

import pytest
from netns import Hosts, eventually
from passing import assert_no_reset
from traces import NOTHING, goes_through, is_held, rules

import tcpcp
from tcpcp.endpoint import isolation
from tcpcp.kernel import tcp_repair

pytestmark = pytest.mark.usefixtures("brief")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "TIMEOUT_S", 1)


def run_out() -> None:
    time.sleep(1.15)


@pytest.mark.parametrize("call", ("activate", "release", "renew"))
def test_after_get_nothing_is_changed(hosts: Hosts, call: str) -> None:
    """The ICI is void: data came since. The connection is still the one of this socket."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        tcpcp.get(sock)
        run_out()
        peer.sendall(b"acknowledged by whom?")
        with pytest.raises(tcpcp.Expired):
            getattr(tcpcp, call)(sock)
        assert tcp_repair.get_repair(sock)
        with pytest.raises(tcpcp.Expired):  # and can be told so again
            getattr(tcpcp, call)(sock)
        with pytest.raises(tcpcp.Expired):
            tcpcp.resume(sock)
    assert not tcp_repair.get_repair(sock)
    sock.settimeout(5)
    assert sock.recv(100) == b"acknowledged by whom?"
    assert_no_reset(hosts)


def test_resume_makes_it_run_and_says_so(hosts: Hosts) -> None:
    """The socket works; its ICI must not be used. After that it is a socket that was never got."""
    sock, peer = hosts.connect()
    reuse = sock.getsockopt(1, 2)
    with hosts.here.entered():
        tcpcp.get(sock)
        run_out()
        with pytest.raises(tcpcp.Expired):
            tcpcp.resume(sock)
        with pytest.raises(tcpcp.NotGot):
            tcpcp.resume(sock)
        assert sock.getsockopt(1, 2) == reuse
        tcpcp.get(sock)
        tcpcp.resume(sock)
    peer.sendall(b"1")
    assert sock.recv(1) == b"1"
    assert rules(hosts.here) == NOTHING


def test_of_several_one_has_run_out(hosts: Hosts) -> None:
    """activate_many refuses all, with nothing changed; resume_many makes all run."""
    (late, its_peer), (sock, peer) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        tcpcp.get(late)
        time.sleep(0.7)
        tcpcp.get(sock)
        time.sleep(0.45)
        for call in (tcpcp.activate_many, tcpcp.release_many, tcpcp.renew_many):
            with pytest.raises(tcpcp.Expired):
                call([sock, late])
        assert tcp_repair.get_repair(sock)
        assert tcp_repair.get_repair(late)
        with pytest.raises(tcpcp.Expired):
            tcpcp.resume_many([late, sock])
    assert not tcp_repair.get_repair(sock)
    assert not tcp_repair.get_repair(late)
    for one in (peer, its_peer):
        one.send(b"1")
        eventually(lambda one=one: not tcp_repair.get_outq(one), "acknowledged")


def test_created(hosts: Hosts) -> None:
    """A created socket that is activated too late: a packet may have drawn anything meanwhile."""
    sock, _ = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        made = tcpcp.create(ici)
        run_out()
        with pytest.raises(tcpcp.Expired):
            tcpcp.activate(made)
        assert tcp_repair.get_repair(made)
        with pytest.raises(tcpcp.Expired):
            tcpcp.resume(made)
        assert not tcp_repair.get_repair(made)


def test_renewed(hosts: Hosts) -> None:
    """Held as long as it is renewed in time; then released, and the time after that is a whole one."""
    isolation.TIMEOUT_S = 2
    (sock, peer), (other, its_peer) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        tcpcp.get_many([sock, other])
        for _ in range(3):
            time.sleep(1.2)
            tcpcp.renew(sock)
            tcpcp.renew_many([other])
        assert is_held(peer)
        time.sleep(1)
        tcpcp.release(sock)
        tcpcp.activate(other)
        time.sleep(1.2)  # longer than what was left
        assert is_held(peer)
        assert goes_through(its_peer, within_s=0.5)
    assert_no_reset(hosts)


def test_an_image_that_is_made_here_again_in_time_is_not_held_by_the_past(hosts: Hosts) -> None:
    """Time that runs out after a connection was let through does it no harm."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
        peer.settimeout(5)
        for _ in range(30):
            made.sendall(b"1")
            assert peer.recv(1) == b"1"
            time.sleep(0.05)
        eventually(lambda: rules(hosts.here).elements == 0, "expired", 3)
        # With nothing held, the next call of any kind starts afresh, and leaves nothing.
        tcpcp.get(made)
        tcpcp.resume(made)
    assert rules(hosts.here) == NOTHING
