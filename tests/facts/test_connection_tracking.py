"""A destination that tracks connections: what is fed to this host's own stack decides nothing about them.

It leaves by the loopback interface and has the peer's address, and is the first of its connection that such a host
sees. Were it tracked, and translated by a rule that is meant for others, what the peer sends would be translated
likewise, find no socket, and be reset.
"""

from __future__ import annotations

import socket
import subprocess

import pytest
from netns import Hosts
from passing import assert_no_reset, wait_state

import tcpcp
from tcpcp.endpoint import builder, flow_table, isolation, reader
from tcpcp.endpoint.calls import flow_of
from tcpcp.endpoint.isolation import Isolation
from tcpcp.kernel import nft_rules
from tcpcp.record.ici import State

#: As kube-proxy has it, and as gateways of a VPN have it for their clients.
MASQUERADING = """
table inet test {
    chain out {
        type nat hook postrouting priority 100;
        meta mark & 0x4000 == 0x4000 masquerade
        ip saddr 10.9.0.2 ip daddr != 10.8.0.0/16 masquerade
        ip6 saddr fd09::2 ip6 daddr != fd08::/64 masquerade
    }
}
"""
#: As hosts with several ways out have it, and service meshes.
MARKING = """
table inet test {
    chain in {
        type filter hook prerouting priority -150;
        meta mark set ct mark
    }
}
"""
REDIRECTING = """
table inet test {
    chain out {
        type nat hook output priority -100;
        oifname "lo" meta l4proto tcp redirect to :15001
    }
}
"""


@pytest.mark.parametrize("half_closed", (False, True))
@pytest.mark.parametrize("kind", ("v4", "v6"))
@pytest.mark.parametrize("rules", (MASQUERADING, MARKING, REDIRECTING))
def test_what_is_fed_is_not_tracked(hosts: Hosts, rules: str, kind: str, half_closed: bool) -> None:
    """The destination has seen nothing of the connection before: its tracking begins with these rules."""
    sock, peer = asked(hosts, kind, half_closed)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        add(rules)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    assert_goes_on(made, peer, half_closed)
    assert_no_reset(hosts)


@pytest.mark.parametrize("half_closed", (False, True))
@pytest.mark.parametrize("rules", (MASQUERADING, MARKING, REDIRECTING))
def test_nor_under_the_filter_of_a_whole_process(hosts: Hosts, rules: str, half_closed: bool) -> None:
    sock, peer = asked(hosts, "v4", half_closed)
    with hosts.here.entered():
        filter_ = Isolation("whole")
        filter_.hold([flow_of(sock)])
        ici = reader.read(sock)
        builder.discard(sock)
        add(rules)
        made = tcpcp.create(ici, isolate=False)
        tcpcp.activate(made)
        filter_.release()
    assert_goes_on(made, peer, half_closed)
    assert_no_reset(hosts)


def asked(hosts: Hosts, kind: str, half_closed: bool) -> tuple[socket.socket, socket.socket]:
    """A server's end, and that of a client which waits for an answer."""
    sock, peer = hosts.connect(kind)
    for one in (sock, peer):
        one.settimeout(5)
    peer.sendall(b"question")
    assert sock.recv(8, socket.MSG_WAITALL) == b"question"
    if half_closed:
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
    return sock, peer


def add(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def assert_goes_on(made: socket.socket, peer: socket.socket, half_closed: bool) -> None:
    """In both directions, to its end."""
    made.settimeout(5)
    made.sendall(b"a" * 5000)
    made.shutdown(socket.SHUT_WR)
    assert len(b"".join(iter(lambda: peer.recv(9000), b""))) == 5000
    if not half_closed:
        peer.sendall(b"thanks")
        peer.shutdown(socket.SHUT_WR)
        assert made.recv(6, socket.MSG_WAITALL) == b"thanks"
    assert made.recv(1) == b""


def test_a_kernel_without_tracking(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no such expression: the filters do without."""
    unknown = nft_rules.nest(1, nft_rules.text(1, "nosuchthing"))
    monkeypatch.setattr(flow_table, "_UNTRACKED", [unknown])
    monkeypatch.setattr(isolation, "_UNTRACKED", "nosuchthing")
    sock, peer = asked(hosts, "v4", True)
    with hosts.here.entered():
        filter_ = Isolation("whole")
        filter_.hold([flow_of(sock)])
        assert filter_.in_force()
        filter_.release()
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    assert_goes_on(made, peer, True)
