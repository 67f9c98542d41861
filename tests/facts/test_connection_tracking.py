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
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gap_hosts import GapHosts, Moving, receive_all
from helpers import Helper
from netns import Hosts, eventually, ip
from passing import assert_no_reset, pass_on, wait_state

import tcpcp
from migrate.inventory import translated
from migrate.pb.session_pb2 import TcpSocket
from tcpcp import helper
from tcpcp.endpoint import (
    flow_table,
    isolation,
    reader,
    repair_mode,
)
from tcpcp.endpoint.calls import flow_of
from tcpcp.endpoint.isolation import Isolation
from tcpcp.kernel import diag, netfilter, nft_rules, tracking
from tcpcp.record.ici import Endpoint, Ici, State

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

REDIRECTED = """
table inet test {
    chain in {
        type nat hook prerouting priority -100;
        tcp dport 80 redirect to :7057
    }
}
"""
MASQUERADED = """
table inet test {
    chain out {
        type nat hook postrouting priority 100;
        tcp dport 7057 masquerade to :40000-40100
    }
}
"""
#: As hosts have it where a server runs: it may be called, and may answer.
SERVER = """
table inet test {
    chain in {
        type filter hook input priority 0; policy drop;
        ct state invalid drop
        ct state established accept
        iif lo accept
        tcp dport 7000 ct state new accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
    chain out {
        type filter hook output priority 0; policy drop;
        ct state invalid drop
        ct state established accept
        oif lo accept
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
        opened = []

        def noted() -> socket.socket:
            opened.append(True)
            return refused()

        with monkeypatch.context() as patched:
            patched.setattr(netfilter, "connect", noted)
            tcpcp.activate(made)
    assert not opened
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
        tracking.introduce(netlink, ends, new=False)  # none of them is there
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


@pytest.fixture
def three() -> Iterator[GapHosts]:
    """The service's host has a firewall."""
    made = GapHosts()
    with made.origin.entered():
        add(SERVER)
    yield made
    made.close()


def elsewhere_and_back(
    hosts: GapHosts, version: int, sock: socket.socket, peer: socket.socket, most: int = 200_000
) -> Ici:
    """*sock* goes to another host, where much is said, and is got there for its first one."""
    return said_elsewhere(Moving.get(hosts, version, sock), peer, most)


def said_elsewhere(moving: Moving, peer: socket.socket, most: int = 200_000) -> Ici:
    """As :func:`elsewhere_and_back`, of one that was got already. :param most: bytes that the peer sends."""
    moving.rebuild()
    made = moving.activate()
    made.sendall(b"x" * 200_000)
    receive_all(peer, 200_000)
    sender = threading.Thread(target=send_much, args=(peer, most))
    sender.start()
    skip(made, most)
    sender.join()
    with moving.hosts.destination.entered():
        ici = tcpcp.get(made)
        tcpcp.release(made)
    moving.hosts.take_back(moving.version)
    return ici


def send_much(sock: socket.socket, count: int) -> None:
    some = bytes(1 << 20)
    while count > 0:
        count -= sock.send(some[:count])


def skip(sock: socket.socket, count: int) -> None:
    """Receive so many bytes, which are not copied: tcp(7), MSG_TRUNC."""
    room = bytearray(1 << 20)
    while count > 0:
        count -= sock.recv_into(room, 0, socket.MSG_TRUNC)


def goes_on_at_home(hosts: GapHosts, ici: Ici) -> socket.socket:
    with hosts.origin.entered():
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    hosts.sockets.append(made)
    made.settimeout(5)
    return made


@pytest.mark.parametrize("version", (4, 6))
def test_back_on_a_host_where_it_has_lived(three: GapHosts, version: int) -> None:
    """There is an entry still, which knows nothing of what was said elsewhere."""
    sock, peer = three.connect(version)
    made = goes_on_at_home(three, elsewhere_and_back(three, version, sock, peer))
    assert_goes_on(made, peer, False)


def test_back_by_the_helper(three: GapHosts) -> None:
    """What the firewall knew of a user's connection it knows when it is back."""
    sock, peer = three.connect(4)
    ici = elsewhere_and_back(three, 4, sock, peer)
    running = Helper(three.origin, "--user", "root")
    with contextlib.closing(running), three.origin.entered(), helper.connect(running.path) as client:
        made = client.create(ici)
        client.activate(made)
    assert_goes_on(made, peer, False)


def test_a_reset_of_one_that_is_back_is_heard(three: GapHosts) -> None:
    """More than 2 GiB were sent elsewhere, so that the peer's number now is one of before the last acknowledged."""
    sock, peer = three.connect(4)
    made = goes_on_at_home(three, elsewhere_and_back(three, 4, sock, peer, most=(1 << 31) + (64 << 20)))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(ConnectionResetError):
        made.recv(1)


def test_the_entry_of_one_that_is_back_stays(three: GapHosts) -> None:
    """It left with bytes under way, for which connection tracking waits five minutes; now it may be silent."""
    sock, peer = three.connect(4)
    three.nft(three.peer, "table inet mute { chain in { type filter hook input priority 0; drop; }; }")
    sock.sendall(b"under way")
    flow = flow_of(sock)
    with three.origin.entered():
        assert timeout_s(flow) <= 300
    moving = Moving.get(three, 4, sock)
    three.nft(three.peer, "delete table inet mute")
    ici = said_elsewhere(moving, peer)
    made = goes_on_at_home(three, ici)
    peer.sendall(b"yes")
    assert receive_all(made, 3) == b"yes"
    with three.origin.entered():  # when that has been acknowledged, which may be delayed
        eventually(lambda: timeout_s(flow) > 3600, "it may be silent for hours")


def timeout_s(flow: isolation.Flow) -> int:
    """For how long connection tracking keeps the entry of *flow*; 0: there is none."""
    one = TcpSocket(
        local_ip=flow.local.packed,
        local_port=flow.local.port,
        peer_ip=flow.peer.packed,
        peer_port=flow.peer.port,
    )
    with contextlib.closing(netfilter.connect()) as netlink:
        netlink.send(translated.question(one))
        answer = netlink.recv(1 << 16)
    found = dict(diag.attributes(answer, 20, len(answer)))
    return int.from_bytes(found.get(7, b""), "big")


@pytest.mark.parametrize("rules", (REDIRECTED, MASQUERADED))
def test_a_translation_stays(hosts: Hosts, rules: str) -> None:
    """Of a connection that is passed to another process of the same host."""
    with hosts.here.entered():
        add(rules)
    sock, peer = translated_pair(hosts, rules is REDIRECTED)
    for _ in range(2):
        _, sock = pass_on(hosts, sock)
        sock.settimeout(5)
        peer.sendall(b"a" * 5000)
        assert receive_all(sock, 5000) == b"a" * 5000
    assert_goes_on(sock, peer, False)
    assert_no_reset(hosts)


def translated_pair(hosts: Hosts, incoming: bool) -> tuple[socket.socket, socket.socket]:
    """The end here of a connection that is translated, and the other."""
    server, client = (hosts.here, hosts.there) if incoming else (hosts.there, hosts.here)
    with server.entered():
        listener = socket.create_server(("", 7057))
    with client.entered():
        one = socket.create_connection(("10.9.0.1", 80) if incoming else ("10.9.0.2", 7057), timeout=5)
    other, _ = listener.accept()
    listener.close()
    other.settimeout(5)
    return (other, one) if incoming else (one, other)


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
