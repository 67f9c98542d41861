"""Connections that this host translates are known by both their names, or numbers; others are not taken for it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import Hosts

from migrate.inventory import translated
from migrate.inventory.tcp_row import message
from tcpcp.kernel import diag

RULES = """
table inet translated {
    chain in {
        type nat hook prerouting priority -100;
        ip daddr 10.9.0.1 tcp dport 80 redirect to :7057
        ip6 daddr fd09::1 tcp dport 80 redirect to :7057
    }
    chain out {
        type nat hook postrouting priority 100;
        tcp dport 7058 masquerade to :40000-40100
    }
}
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    with made.here.entered():
        subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
    yield made
    made.close()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def found(hosts: Hosts) -> dict[int, str]:
    with hosts.here.entered():
        pairs = list(translated.find(message(entry) for entry in diag.tcp()))
    return {one.peer_port: other for one, other in pairs}


@pytest.mark.parametrize("version", [4, 6])
def test_redirected(hosts: Hosts, stack: contextlib.ExitStack, version: int) -> None:
    """The one that came to another port is told with what its peer addresses; the direct one is not."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with hosts.here.entered():
        listening = stack.enter_context(socket.create_server(("", 7057), family=family))
    ports = []
    for port in (80, 7057):
        with hosts.there.entered():
            peer = stack.enter_context(socket.socket(family))
        peer.connect((hosts.here_ip[version], port))
        stack.enter_context(listening.accept()[0])
        ports.append(peer.getsockname()[1])
    (other,) = found(hosts).items()
    address = {4: "10.9.0.1:80", 6: "[fd09::1]:80"}[version]
    assert other[0] == ports[0]
    assert address in other[1]


def test_masqueraded(hosts: Hosts, stack: contextlib.ExitStack) -> None:
    """A connection from here whose source port is another one on the way."""
    with hosts.there.entered():
        listening = stack.enter_context(socket.create_server(("", 7058)))
    with hosts.here.entered():
        sock = stack.enter_context(socket.socket())
    sock.connect(("10.9.0.2", 7058))
    seen = stack.enter_context(listening.accept()[0]).getpeername()[1]
    assert 40000 <= seen <= 40100
    ((port, other),) = found(hosts).items()
    assert port == 7058
    assert f"10.9.0.1:{seen}" in other


SYNPROXY = """
table inet proxied {
    chain raw {
        type filter hook prerouting priority -300;
        tcp dport 7059 tcp flags syn notrack
    }
    chain in {
        type filter hook input priority 0;
        tcp dport 7059 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
        ct state invalid drop
    }
}
"""


def test_behind_a_syn_proxy(hosts: Hosts, stack: contextlib.ExitStack) -> None:
    """The proxy has answered the client with a number of its own."""
    with hosts.here.entered():
        subprocess.run(["nft", "-f", "-"], input=SYNPROXY, text=True, check=True)
        Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose").write_text("0")
        listening = stack.enter_context(socket.create_server(("", 7059)))
    with hosts.there.entered():
        peer = stack.enter_context(socket.create_connection((hosts.here_ip[4], 7059), timeout=5))
    listening.settimeout(5)
    stack.enter_context(listening.accept()[0])
    ((port, other),) = found(hosts).items()
    assert port == peer.getsockname()[1]
    assert "sequence numbers" in other


def test_without_connection_tracking(stack: contextlib.ExitStack) -> None:
    plain = Hosts()
    try:
        for sock in plain.connect():
            stack.enter_context(sock)
        assert found(plain) == {}
    finally:
        plain.close()
