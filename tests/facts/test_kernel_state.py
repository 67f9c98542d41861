"""What no socket option reads or sets: a BPF program does, where the kernel lets us. The judge is ss."""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import Hosts
from passing import assert_no_reset

import tcpcp
from tcpcp import congestion_state, kernel_fields, tcp_repair

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
KINDS = ("v4", "v6", "mapped")


@pytest.fixture(autouse=True)
def permitted() -> Iterator[None]:
    """The kernel lets us; else the tests say so."""
    if not congestion_state.prepare():
        pytest.skip(f"the kernel refuses struct_ops: {congestion_state._refused}")
    yield


def words(hosts: Hosts) -> str:
    """What ss says of the only connection here."""
    return hosts.ss(hosts.here, "-tinH state established")


@pytest.mark.parametrize("algorithm", ("cubic", "reno"))
@pytest.mark.parametrize("kind", KINDS)
def test_window_and_threshold(hosts: Hosts, kind: str, algorithm: str) -> None:
    sock, peer = hosts.connect(kind)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
    congestion_state._made[0].give(sock, 300, 200, False)
    before = words(hosts)
    assert "cwnd:300 ssthresh:200" in before
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        made = tcpcp.create(ici, same_path=True)
    after = words(hosts)
    for pattern in (r"cwnd:\d+", r"(?<!_)ssthresh:\d+", r"\bmss:\d+", rf"\b{algorithm}\b"):
        assert re.findall(pattern, after) == re.findall(pattern, before) != []
    with hosts.here.entered():
        tcpcp.activate(made)
    made.sendall(b"1")
    assert peer.recv(1) == b"1"
    assert_no_reset(hosts)


def test_on_another_path_it_starts_slowly(hosts: Hosts) -> None:
    """Paper 5: highly conservative, where nothing is known of the path."""
    sock, _ = hosts.connect()
    congestion_state._made[0].give(sock, 300, 200, False)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        info = tcp_repair.get_info(tcpcp.create(ici))
    assert (info.snd_cwnd, info.snd_ssthresh) == (10, 0x7FFFFFFF)


@pytest.mark.parametrize(("cwnd", "becomes"), [(1, 2), (1 << 31, 1 << 16)])
def test_a_window_beyond_all_measure(hosts: Hosts, cwnd: int, becomes: int) -> None:
    """The kernel takes what a BPF program writes."""
    sock, _ = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        odd = dataclasses.replace(ici, congestion=dataclasses.replace(ici.congestion, cwnd=cwnd))
        made = tcpcp.create(odd, same_path=True)
        assert tcp_repair.get_info(made).snd_cwnd == becomes
        tcpcp.release(made)


@pytest.mark.parametrize("same_path", (False, True))
@pytest.mark.parametrize("kind", KINDS)
def test_ecn(hosts: Hosts, kind: str, same_path: bool) -> None:
    """Both sides mark what they send, before and after (RFC 3168)."""
    for namespace in (hosts.here, hosts.there):
        with namespace.entered():
            Path("/proc/sys/net/ipv4/tcp_ecn").write_text("1")
    sock, peer = hosts.connect(kind)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        assert ici.negotiated.ecn
        tcpcp.release(sock)
        made = tcpcp.create(ici, same_path=same_path)
        tcpcp.activate(made)
    assert tcp_repair.get_info(made).options & tcp_repair.HAS_ECN
    counter = "Ip6InECT0Pkts" if kind == "v6" else "IpExtInECT0Pkts"
    before = hosts.counters(hosts.there)[counter]
    made.sendall(b"marked")
    assert peer.recv(10) == b"marked"
    assert hosts.counters(hosts.there)[counter] == before + 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_peers_timestamp(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    peer.sendall(b"x")
    before = tcp_repair.get_timestamp(peer)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.resume(sock)
    assert ici.timestamp is not None and ici.timestamp.ts_recent is not None
    assert 0 <= (before + 1 - ici.timestamp.ts_recent) % 2**32 <= 10


def test_where_the_kernel_refuses_it_is_done_without(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(congestion_state, "_made", [])
    monkeypatch.setattr(congestion_state, "_refused", [OSError()])
    monkeypatch.setattr(kernel_fields, "_made", [])
    monkeypatch.setattr(kernel_fields, "_refused", [OSError()])
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        assert ici.timestamp is not None and ici.timestamp.ts_recent is None
        tcpcp.release(sock)
        faster = dataclasses.replace(ici, congestion=dataclasses.replace(ici.congestion, cwnd=77))
        made = tcpcp.create(faster, same_path=True)
        assert tcp_repair.get_info(made).snd_cwnd in (77, 78)
        tcpcp.activate(made)
    made.sendall(b"1")
    assert peer.recv(1) == b"1"


def test_nothing_is_left_registered() -> None:
    one = congestion_state.Setter()
    assert one._name in AVAILABLE.read_text()
    one.close()
    assert one._name not in AVAILABLE.read_text()
