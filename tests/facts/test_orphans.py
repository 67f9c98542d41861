"""Who had a connection that a filter holds was killed: its peer never hears of it, if the kernel forgets it."""

from __future__ import annotations

import pytest
from netns import Hosts, eventually
from programs import program

from tcpcp.endpoint import orphans
from tcpcp.endpoint.calls import flow_of
from tcpcp.endpoint.isolation import Isolation


@pytest.mark.parametrize("forgotten", (True, False))
@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_killed_while_it_was_held(hosts: Hosts, kind: str, forgotten: bool) -> None:
    """Else the FIN that the kernel sends again and again gets through when the filter is gone."""
    sock, peer = hosts.connect(kind)
    other, its_peer = hosts.connect(kind)
    with hosts.here.entered():
        filter_ = Isolation("killed")
        filter_.hold((), [flow_of(sock).local])
        with program("ready()", pass_fds=[sock.fileno()]):
            sock.close()
        assert orphaned(hosts)
        if forgotten:
            assert orphans.forget("killed") == 1
            assert not orphaned(hosts)
            assert orphans.forget("killed") == 0
        filter_.release()
    its_peer.sendall(b"1")
    assert other.recv(1) == b"1"
    peer.settimeout(0.7 if forgotten else 5)
    if forgotten:
        with pytest.raises(TimeoutError):
            peer.recv(1)
        assert hosts.counters(hosts.there)["TcpEstabResets"] == 0
    else:
        assert peer.recv(1) == b""


def orphaned(hosts: Hosts) -> str:
    return hosts.ss(hosts.here, "-tnH state fin-wait-1")


def test_those_that_somebody_has_stay(hosts: Hosts) -> None:
    """Closed by one end only, and held: its program is there still."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        filter_ = Isolation("closed")
        filter_.hold((), [flow_of(sock).local])
        sock.shutdown(1)
        assert orphaned(hosts)
        assert orphans.forget("closed") == 0
        assert orphans.forget("nobody") == 0
        filter_.release()
    assert eventually(lambda: peer.recv(1) == b"", "its end has come")
