"""A peer that has opened its window in the gap is asked at once, wherever something may wait for it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import socket
import subprocess
import time
from pathlib import Path
from random import Random

import pytest
from harness.pcap import distance
from netns import Hosts, eventually
from passing import assert_no_reset, deaf, pass_on, wait_state
from space_wire import Wire

import tcpcp
from tcpcp.criu import stages
from tcpcp.endpoint import asking, isolation
from tcpcp.kernel import fields, tcp_repair
from tcpcp.record.ici import State

DATA = Random(5).randbytes(8_000_000)
STATES = (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT1, State.CLOSING, State.LAST_ACK)
#: After so many attempts in vain the kernel's timer takes 3.2 s; that of a new connection takes 3 s. A peer answers
#: a probe every half second (net.ipv4.tcp_invalid_ratelimit), and has answered the timer's.
BACKED_OFF, ANSWERS_AGAIN_S, BEFORE_THE_TIMER_S = 4, 0.6, 1.5
IPV6_AUTOFLOWLABEL = 70
#: The peer's kernel counts what comes behind its window.
BEYOND = "TcpExtBeyondWindow"


def backoff(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 5)[4]


def shut(
    hosts: Hosts, kind: str, state: State, backed_off: int = 0
) -> tuple[socket.socket, socket.socket, int]:
    """An endpoint in *state* with bytes that wait and nothing under way, its peer, and how many it has written."""
    sock, peer = hosts.connect(kind)
    sock.setblocking(False)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while written < len(DATA):
            written += sock.send(DATA[written : written + 5000])
    if state in (State.CLOSE_WAIT, State.LAST_ACK):
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
    if state not in (State.ESTABLISHED, State.CLOSE_WAIT):
        sock.shutdown(socket.SHUT_WR)
    if state == State.CLOSING:
        peer.shutdown(socket.SHUT_WR)
    wait_state(sock, state)
    eventually(lambda: tcp_repair.get_outq(sock) == tcp_repair.get_outq_nsd(sock), "all acknowledged")
    eventually(lambda: backoff(sock) == BACKED_OFF, "asked in vain", 20)
    time.sleep(ANSWERS_AGAIN_S)
    return sock, peer, written


def read_all(peer: socket.socket) -> bytes:
    """What has arrived."""
    peer.setblocking(False)
    got = bytearray()
    with contextlib.suppress(BlockingIOError):
        while some := peer.recv(1 << 20):
            got += some
    return bytes(got)


def run(hosts: Hosts, sock: socket.socket, ici: tcpcp.Ici, how: str) -> socket.socket:
    if how == "created":
        tcpcp.release(sock)
        sock = tcpcp.create(ici)
    tcpcp.resume(sock) if how == "resumed" else tcpcp.activate(sock)
    return sock


def rest(peer: socket.socket, got: bytes, written: int) -> bytes:
    """The first of it at once, the others as a small window lets them through."""
    peer.settimeout(BEFORE_THE_TIMER_S)
    whole = bytearray(got)
    while len(whole) < written:
        whole += peer.recv(1 << 20)
        peer.settimeout(10)
    return bytes(whole)


def test_echoes_what_has_just_come(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a process that has read nothing by BPF yet: while the clock is read the peer speaks."""
    sock, peer, written = shut(hosts, "v4", State.CLOSE_WAIT)
    later, built = asking._later, asking._built
    echoed: list[tuple[int, int | None, int | None]] = []

    def the_peer_speaks(sock: socket.socket, deadline: float) -> tuple[int, float]:
        if not got:  # a machine with much to do is asked for the time again
            before = fields.read([sock])[0].ts_recent
            time.sleep(0.01)  # the peer's clock is of milliseconds
            got.extend(read_all(peer))
            eventually(lambda: fields.read([sock])[0].ts_recent != before, "the peer has spoken")
        return later(sock, deadline)

    def noted(asked: asking.Question, timestamp: tuple[int, int]) -> bytes:
        echoed.append((timestamp[1], fields.read([sock])[0].ts_recent, asked.echoed))
        return built(asked, timestamp)

    monkeypatch.setattr(asking, "_later", the_peer_speaks)
    monkeypatch.setattr(asking, "_built", noted)
    with hosts.here.entered():
        got = bytearray()
        ici = tcpcp.get(sock)
        monkeypatch.setattr(fields, "_made", [])
        tcpcp.release(sock)
        sock = tcpcp.create(ici)
        tcpcp.activate(sock)
    said, recent, before = echoed[-1]
    assert said == recent != before
    assert rest(peer, bytes(got), written) == DATA[:written]
    sock.close()


@pytest.mark.parametrize("how", ("resumed", "activated", "created"))
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_opened_in_the_gap(hosts: Hosts, state: State, how: str) -> None:
    asked_for(hosts, "v4", state, how)


@pytest.mark.parametrize("how", ("resumed", "created"))
@pytest.mark.parametrize("stamps", (1, 0), ids=("timestamps", "no timestamps"))
@pytest.mark.parametrize("kind", ("v6", "mapped"))
def test_by_other_ways(hosts: Hosts, kind: str, stamps: int, how: str) -> None:
    for host in (hosts.here, hosts.there):
        with host.entered():
            Path("/proc/sys/net/ipv4/tcp_timestamps").write_text(str(stamps))
    asked_for(hosts, kind, State.CLOSE_WAIT, how)


def asked_for(hosts: Hosts, kind: str, state: State, how: str) -> None:
    sock, peer, written = shut(hosts, kind, state)
    before = hosts.counters(hosts.there)[BEYOND]
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        assert ici.send_queue.unsent and not ici.send_queue.sent
        got = read_all(peer)
        sock = run(hosts, sock, ici, how)
    assert rest(peer, got, written) == DATA[:written]
    assert hosts.counters(hosts.there)[BEYOND] == before
    assert_no_reset(hosts)
    sock.close()


@pytest.mark.parametrize("how", ("resumed", "activated", "created"))
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_shut_still(hosts: Hosts, state: State, how: str) -> None:
    """The peer is asked, says so, and nothing is sent beyond its window."""
    sock, peer, written = shut(hosts, "v4", state)
    before = hosts.counters(hosts.there)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        sock = run(hosts, sock, ici, how)
    time.sleep(0.3)
    after = hosts.counters(hosts.there)
    assert after[BEYOND] == before[BEYOND]
    assert rest(peer, read_all(peer), written) == DATA[:written]
    assert_no_reset(hosts)
    sock.close()


def test_by_the_way_of_the_socket(hosts: Hosts) -> None:
    """Bound to an interface, its packets marked: what asks for it goes by that interface, and is marked so too."""
    sock, peer, written = shut(hosts, "v4", State.CLOSE_WAIT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"here0\0")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
    with hosts.here.entered():
        chain = "chain o { type filter hook output priority 0; meta l4proto tcp meta mark != 7 drop; }"
        subprocess.run(["nft", f"table inet marked {{ {chain}; }}"], check=True)
        tcpcp.get(sock)
        got = read_all(peer)
        tcpcp.resume(sock)
    assert rest(peer, got, written) == DATA[:written]


MARKED = {
    "v4": "meta l4proto tcp ip ttl != 77 drop; ip dscp != 18 drop; meta l4proto tcp ip frag-off & 0x4000 == 0 drop",
    "v6": "meta l4proto tcp ip6 hoplimit != 77 drop; meta l4proto tcp ip6 dscp != 18 drop",
}


@pytest.mark.parametrize("kind", MARKED)
def test_with_the_marks_of_the_socket(hosts: Hosts, kind: str) -> None:
    """Hops, traffic class and DF of what asks are those of all that the socket sends."""
    sock, peer, written = shut(hosts, kind, State.CLOSE_WAIT)
    if kind == "v4":
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 77)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 18 << 2)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 77)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 18 << 2)
    with hosts.here.entered():
        chain = f"chain o {{ type filter hook output priority 0; {MARKED[kind]}; }}"
        subprocess.run(["nft", f"table inet marked {{ {chain}; }}"], check=True)
        tcpcp.get(sock)
        got = read_all(peer)
        tcpcp.resume(sock)
    assert rest(peer, got, written) == DATA[:written]


#: Settings of net.ipv6, and what is set of IPV6_AUTOFLOWLABEL.
AUTO, RANGES, REFLECT = "auto_flowlabels", "flowlabel_state_ranges", "flowlabel_reflect"
LABELLED = {
    "usual": ({}, None),
    "of all ranges": ({RANGES: 0}, None),
    "none": ({AUTO: 0}, None),
    "not this one": ({}, 0),
    "this one": ({AUTO: 2}, 1),
    "all": ({AUTO: 3}, 0),
    "the peer's": ({REFLECT: 1}, None),
}
RESUMED_OR_CREATED = [(name, "resumed") for name in LABELLED] + [
    ("usual", "created"),
    ("the peer's", "created"),
]


@pytest.mark.parametrize(("label", "how"), RESUMED_OR_CREATED)
def test_with_the_flow_label_of_the_socket(hosts: Hosts, label: str, how: str) -> None:
    """Of IPv6, which says to routers what belongs together."""
    sysctls, chosen = LABELLED[label]
    with hosts.here.entered():
        for name, value in sysctls.items():
            Path("/proc/sys/net/ipv6", name).write_text(str(value))
    sock, peer, written = shut(hosts, "v6", State.CLOSE_WAIT)
    if chosen is not None:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, chosen)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        got = read_all(peer)
        wire = Wire(hosts.here, "here0", isolation.MARK)
        sock = run(hosts, sock, ici, how)
    assert rest(peer, got, written) == DATA[:written]
    sizes = [one.size for one in wire.packets() if one.sender[1] == sock.getsockname()[1]]
    labels = [flow_label(one) for one in wire.raw if from_port(one) == sock.getsockname()[1]]
    wire.close()
    assert sizes[0] == 0 < sizes[-1]  # what asks, and what it has asked for
    assert len(labels) == len(sizes)
    assert len(set(labels)) == 1
    assert (labels[0] == 0) == (label in ("none", "not this one"))


def test_the_flow_label_is_another_after_a_pass(hosts: Hosts) -> None:
    sock, peer = hosts.connect("v6")
    labels: list[set[int]] = []
    for _ in range(2):
        wire = Wire(hosts.here, "here0", isolation.MARK)
        sock.sendall(b"x")
        assert peer.recv(1) == b"x"
        wire.packets()
        labels.append({flow_label(one) for one in wire.raw if from_port(one) == sock.getsockname()[1]})
        wire.close()
        _, sock = pass_on(hosts, sock)
    assert [len(one) for one in labels] == [1, 1]
    assert labels[0] != labels[1]


def flow_label(packet: bytes) -> int:
    return int.from_bytes(packet[1:4]) & 0xFFFFF


def from_port(packet: bytes) -> int:
    return int.from_bytes(packet[40:42])


def test_it_echoes_what_has_come_last(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer speaks, and is answered, while the clock is waited for."""
    sock, peer, _ = shut(hosts, "v4", State.FIN_WAIT1)
    later = asking._later

    def spoken_to(ours: socket.socket, deadline: float) -> tuple[int, float]:
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        unread = tcp_repair.get_inq(ours)
        time.sleep(0.003)  # another time of the peer's clock
        peer.send(b"x")
        eventually(lambda: tcp_repair.get_inq(ours) > unread, "it has come")
        return later(ours, deadline)

    monkeypatch.setattr(asking, "_later", spoken_to)
    wire = Wire(hosts.here, "here0", isolation.MARK)
    with hosts.here.entered():
        tcpcp.get(sock)
        tcpcp.resume(sock)
    ours = [one for one in wire.packets() if one.sender[1] == sock.getsockname()[1]]
    wire.close()
    echoed = [one.tsecr for one in ours if one.tsecr is not None]
    assert len(echoed) > 1  # the answer, and what asks
    assert echoed == sorted(echoed)


def test_what_is_answered_in_the_same_moment_comes_before_it(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer speaks when the segment is made, and is answered by the kernel, which knows nothing of a raw socket.

    So what asks is older than that by both its timestamps, and the peer drops it. But it has told its window.
    """
    sock, peer, written = shut(hosts, "v4", State.FIN_WAIT1)
    segment, got = asking._segment, bytearray()

    def spoken_to(ours: socket.socket, asked: asking.Question) -> bytes:
        made, unread = segment(ours, asked), tcp_repair.get_inq(ours)
        time.sleep(0.003)  # another time of both clocks
        got.extend(read_all(peer))
        peer.send(b"x")
        eventually(lambda: tcp_repair.get_inq(ours) > unread, "it has come")
        return made

    monkeypatch.setattr(asking, "_segment", spoken_to)
    wire = Wire(hosts.here, "here0", isolation.MARK)
    with hosts.here.entered():
        tcpcp.get(sock)
        tcpcp.resume(sock)
    assert rest(peer, bytes(got), written) == DATA[:written]
    ours = [one for one in wire.packets() if one.sender[1] == sock.getsockname()[1]]
    wire.close()
    ((before, asks),) = [two for two in itertools.pairwise(ours) if distance(two[1].seq, two[0].seq) < 0]
    assert not asks.octets
    assert all(distance(*both) < 0 for both in zip(asks.timestamps, before.timestamps, strict=True))
    assert hosts.counters(hosts.there)["TcpExtPAWSOldAck"] == 1


def restored(sock: socket.socket) -> tcpcp.Ici:
    """An ICI of which only the tag is looked at."""
    ici = tcpcp.get(sock)
    tcpcp.resume(sock)
    return dataclasses.replace(ici, tag=1)


@pytest.mark.parametrize("where", ("origin", "destination"))
def test_the_driver_s_wake_ups_ask_too(hosts: Hosts, where: str) -> None:
    """A tree that goes on at the origin; one that CRIU has restored, and that has left repair mode once."""
    sock, peer, written = shut(hosts, "v4", State.CLOSE_WAIT)
    with hosts.here.entered():
        ici = restored(sock)
    with deaf(hosts.here):
        got = read_all(peer)
        time.sleep(ANSWERS_AGAIN_S)
    with hosts.here.entered():
        if where == "origin":
            tcp_repair.set_repair(sock, tcp_repair.ON)
            assert stages.go_on(sock)
        else:
            stages.wake([ici], {1: (os.getpid(), sock.fileno())})
    assert rest(peer, got, written) == DATA[:written]
    assert_no_reset(hosts)
