"""A destination that tracks connections: what is fed to this host's own stack decides nothing about them, nor does
what it sends first.

It leaves by the loopback interface and has the peer's address, and is the first of its connection that such a host
sees. Were it tracked, and translated by a rule that is meant for others, what the peer sends would be translated
likewise, find no socket, and be reset.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import subprocess
from pathlib import Path

import pytest
from helpers import Helper
from netns import Hosts, ip
from passing import assert_no_reset, wait_state

import tcpcp
from tcpcp import helper
from tcpcp.endpoint import (
    flow_table,
    isolation,
    reader,
    repair_mode,
)
from tcpcp.endpoint.calls import flow_of
from tcpcp.endpoint.isolation import Isolation
from tcpcp.kernel import netfilter, nft_rules, tracking
from tcpcp.record.ici import Endpoint, State

LOCAL, PEER = ipaddress.ip_address("10.9.0.1"), ipaddress.ip_address("10.9.0.2")

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
NOTHING_INVALID = """
table inet test {
    chain in {
        type filter hook input priority 0;
        ct state invalid drop
    }
    chain out {
        type filter hook output priority 0;
        ct state invalid drop
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


#: A gateway with an address more, that of a service, which is not the one that it masquerades with.
GATEWAY = """
table inet test {
    chain out {
        type nat hook postrouting priority 100;
        oifname "here0" masquerade
    }
}
"""
#: What belongs to a connection that is known may leave, and nothing new.
FIREWALL = """
table inet test {
    chain in {
        type filter hook input priority 0; policy drop;
        ct state established accept
        meta mark 0xc114 accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
    chain out {
        type filter hook output priority 0; policy drop;
        ct state established accept
        meta mark 0xc114 accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
}
"""


def passed(sock: socket.socket, rules: str) -> socket.socket:
    """*sock*, in the entered namespace, as it goes on at a destination that has *rules*."""
    ici = tcpcp.get(sock)
    tcpcp.release(sock)
    add(rules)
    made = tcpcp.create(ici)
    tcpcp.activate(made)
    return made


@pytest.mark.parametrize("half_closed", (False, True))
@pytest.mark.parametrize("kind", ("v4", "v6"))
@pytest.mark.parametrize("rules", (GATEWAY, FIREWALL))
def test_what_is_created_is_known(hosts: Hosts, rules: str, kind: str, half_closed: bool) -> None:
    """The destination's tracking takes it for one that the peer has begun, as it was."""
    sock, peer = asked(hosts, kind, half_closed)
    with hosts.here.entered():
        for change in ("del 10.9.0.1/24", "add 10.9.0.9/24", "add 10.9.0.1/32", "add fd09::9/64 nodad"):
            ip(f"addr {change} dev here0")
        made = passed(sock, rules)
    assert_goes_on(made, peer, half_closed)
    assert_no_reset(hosts)


def test_nothing_is_opened_for_it_and_closed(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket of netfilter's is not closed before the kernel has taken apart what was deleted last: 30 ms."""
    sock, peer = asked(hosts, "v4", False)
    with hosts.here.entered():
        tcpcp.prepare()
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        add(FIREWALL)
        made = tcpcp.create(ici)
        with monkeypatch.context() as patched:
            patched.setattr(netfilter, "connect", refused)
            tcpcp.activate(made)
    assert_goes_on(made, peer, False)


def test_without_the_kernels_packet_filter(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever isolates in another way needs none: nothing is tracked there that would have to be told."""
    sock, peer = asked(hosts, "v4", False)
    with hosts.here.entered():
        filter_ = Isolation("whole")
        filter_.hold([flow_of(sock)])
        ici = reader.read(sock)
        repair_mode.discard(sock)
        with monkeypatch.context() as patched:
            patched.setattr(netfilter, "connect", refused)
            made = tcpcp.create(ici, isolate=False)
            tcpcp.activate(made)
        filter_.release()
    assert_goes_on(made, peer, False)


def refused() -> socket.socket:
    raise tcpcp.IsolationError("no socket")


def test_refusals_that_nobody_reads(hosts: Hosts) -> None:
    """More of them than there is room for in the socket, so that some are lost: the next question is answered."""
    ends = [(Endpoint(LOCAL, port), Endpoint(PEER, port)) for port in range(1000, 5000)]
    with hosts.here.entered(), contextlib.closing(netfilter.Netlink()) as netlink:
        for _ in range(2):  # what is there already is refused
            tracking.introduce(netlink, ends)
        assert netlink.tables() == []
        assert netlink.tables() == []


@pytest.mark.alone
def test_not_for_a_user_of_the_helper(hosts: Hosts) -> None:
    """He could have had sent with it what the firewall would not let him send."""
    sock, peer = asked(hosts, "v4", False)
    running = Helper(hosts.here, "--user", "root")
    with contextlib.closing(running), hosts.here.entered(), helper.connect(running.path) as client:
        ici = client.get(sock)
        client.release(sock)
        add(FIREWALL)
        made = client.create(ici)
        client.activate(made)
    peer.settimeout(0.5)
    made.sendall(b"a")
    with pytest.raises(TimeoutError):
        peer.recv(1)


@pytest.mark.parametrize("loose", ("0", "1"))
def test_tracked_from_the_middle_on_or_not_at_all(hosts: Hosts, loose: str) -> None:
    """net.netfilter.nf_conntrack_tcp_loose=0: what began unseen is invalid."""
    sock, peer = asked(hosts, "v4", False)
    with hosts.here.entered():
        Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose").write_text(loose)
        made = passed(sock, NOTHING_INVALID)
    assert_goes_on(made, peer, False)
    assert_no_reset(hosts)


@pytest.mark.parametrize("half_closed", (False, True))
@pytest.mark.parametrize("kind", ("v4", "v6"))
@pytest.mark.parametrize("rules", (MASQUERADING, MARKING, REDIRECTING))
def test_what_is_fed_is_not_tracked(hosts: Hosts, rules: str, kind: str, half_closed: bool) -> None:
    """The destination has seen nothing of the connection before: its tracking begins with these rules."""
    sock, peer = asked(hosts, kind, half_closed)
    with hosts.here.entered():
        made = passed(sock, rules)
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
        repair_mode.discard(sock)
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


def test_a_filter_on_bits_of_the_mark(hosts: Hosts) -> None:
    """As kube-proxy's, which drops what has 0x8000 in its mark: what the error says to do about it is enough."""
    sock, peer = asked(hosts, "v4", True)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        for chain in ("OUTPUT", "INPUT"):
            iptables("-A", chain, "-m", "mark", "--mark", "0x8000/0x8000", "-j", "DROP")
        with pytest.raises(tcpcp.Unfed, match="iptables -I OUTPUT -m mark --mark 0xc114 -j ACCEPT"):
            tcpcp.create(ici)
        for chain in ("OUTPUT", "INPUT"):
            iptables("-I", chain, "-m", "mark", "--mark", "0xc114", "-j", "ACCEPT")
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    assert_goes_on(made, peer, True)


def iptables(*words: str) -> None:
    subprocess.run(["iptables", *words], check=True)
