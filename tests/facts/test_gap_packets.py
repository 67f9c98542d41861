"""Packets of the gap: what a packet socket sees, what a raw socket's packets reach; judged by nstat."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from gap_hosts import PORT, SERVICE, GapHosts, payloads, wait_caught
from netns import eventually, ip

from migrate.errors import TransportError
from migrate.gap import capture as gap
from migrate.gap import packets
from migrate.gap.inject import Injector
from tcpcp.endpoint import calls
from tcpcp.endpoint.isolation import Isolation
from tcpcp.record.ici import Endpoint

VERSIONS = (4, 6)


@pytest.fixture
def hosts(gap_hosts: GapHosts) -> GapHosts:
    return gap_hosts


# --- capture -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_seen_though_dropped_and_though_the_address_is_gone(
    hosts: GapHosts, capture: gap.Capture, version: int
) -> None:
    sock, peer = hosts.connect(version)
    peer.send(b"before")
    assert sock.recv(10) == b"before"
    assert capture.take() == []
    capture.everything()
    with hosts.origin.entered():
        isolation = Isolation("gap")
        isolation.hold([calls.flow_of(sock)])
        sock.send(b"ours is not seen")
    peer.send(b"one")
    assert payloads(wait_caught(capture, 1)) == b"one"
    hosts.withdraw(version)
    peer.send(b"two")
    assert payloads(wait_caught(capture, 1)) == b"two"
    capture.nothing()
    assert hosts.counters(hosts.origin)["TcpOutRsts"] == 0
    peer.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_checksum_is_not_there_between_virtual_devices(
    hosts: GapHosts, capture: gap.Capture, version: int
) -> None:
    """Source: drivers/net/veth.c passes CHECKSUM_PARTIAL on; TP_STATUS_CSUMNOTREADY says so.

    And what segmentation offload left in one piece is one packet here.
    """
    _sock, peer = hosts.connect(version)
    capture.everything()
    peer.send(b"x" * 100_000)
    caught: list[tuple[bytes, int]] = []

    def a_long_one() -> bool:
        caught.extend(iter(lambda: capture._receive(capture._sockets[VERSIONS.index(version)]), None))
        return any(len(data) > 1500 for data, _ in caught)

    eventually(a_long_one, "a packet longer than the MTU")
    for data, status in caught:
        segment = packets.parse(data)
        assert segment is not None
        assert status & gap._CHECKSUM_NOT_READY
        assert not packets.intact(segment)
        ready = capture._made_ready(data, status)
        assert all(packets.intact(one) for one in packets.parse_all(piece.packet for piece in ready))
        assert payloads(list(packets.parse_all(piece.packet for piece in ready))) == segment.payload


def test_a_damaged_packet_is_not_made_good(hosts: GapHosts, capture: gap.Capture) -> None:
    sock, _peer = hosts.connect(4)
    flow = calls.flow_of(sock)
    capture.everything()
    good = bytearray(packets.build(_segment_of(flow.peer, flow.local, b"right")))
    bad = good[:-1] + b"?"
    with hosts.peer.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in (bad, good):
            raw.sendto(packet, (SERVICE[4], 0))
    assert payloads(wait_caught(capture, 1)) == b"right"


def _segment_of(sender: Endpoint, receiver: Endpoint, payload: bytes) -> packets.Segment:
    ports = sender.port.to_bytes(2, "big") + receiver.port.to_bytes(2, "big")
    addresses = sender.ip.packed + receiver.ip.packed
    header = bytes([0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, 6, 0, 0]) + addresses
    return packets.Segment(header, ports + bytes(8) + b"\x50\x10\1\0\0\0\0\0", payload, addresses + ports)


def test_only_what_is_moved(hosts: GapHosts, capture: gap.Capture) -> None:
    sock, peer = hosts.connect(4)
    other, other_peer = hosts.connect(4)
    capture.everything()
    capture.only([calls.flow_of(sock)], [])
    other_peer.send(b"not ours")
    assert other.recv(10) == b"not ours"
    peer.send(b"ours")
    assert payloads(wait_caught(capture, 1)) == b"ours"


def test_syns_only_until_everything(hosts: GapHosts, capture: gap.Capture) -> None:
    sock, peer = hosts.connect(4)
    capture.syns([Endpoint(ipaddress.ip_address("0.0.0.0"), PORT)])
    peer.send(b"data")
    assert sock.recv(10) == b"data"
    with hosts.peer.entered(), socket.socket() as newcomer:
        newcomer.setblocking(False)
        newcomer.connect_ex((SERVICE[4], PORT))
        (syn,) = wait_caught(capture, 1)
    assert syn.opens


def test_a_full_store_keeps_the_oldest(hosts: GapHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gap, "STORE_BYTES", 1 << 16)
    sock, peer = hosts.connect(4)
    with hosts.origin.entered(), contextlib.closing(gap.Capture()) as small:
        small.everything()
        for number in range(400):
            peer.send(number.to_bytes(2, "big"))
            assert sock.recv(2)
        caught = small.take()
        assert 20 < len(caught) < 400
        assert payloads(caught) == b"".join(n.to_bytes(2, "big") for n in range(len(caught)))
        assert small.count_dropped() == 400 - len(caught)
        assert small.count_dropped() == 400 - len(caught)


def test_what_comes_before_anything_is_caught_is_not_lost(
    hosts: GapHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other services' packets, while the sockets are made: neither kept nor counted."""
    attach = gap._attach

    def in_a_flood(sock: socket.socket, program: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as others:
            for _ in range(1000):
                others.sendto(b"x", (SERVICE[4], 9))
        attach(sock, program)

    with hosts.origin.entered():
        ip("link set lo up")
        monkeypatch.setattr(gap, "_attach", in_a_flood)
        with contextlib.closing(gap.Capture()) as capture:
            assert capture.count_dropped() == 0
            assert capture.take() == []


# --- injection ---------------------------------------------------------------------------------------------

STRICT = "net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.lo.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1"
#: A firewall that trusts nothing but what it must: strict reverse path, the service's port by its device.
FIREWALL = """table inet wall {
  chain pre { type filter hook prerouting priority raw; iif != lo fib saddr . iif oif missing drop; }
  chain in { type filter hook input priority 0; policy drop; iif lo accept; icmpv6 type >= 0 accept;
             iifname eth0 tcp dport 7000 accept; }
}"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ("raw", "tun"))
def test_past_reverse_path_filter_and_firewall(
    hosts: GapHosts, capture: gap.Capture, version: int, way: str
) -> None:
    """A raw socket's packet arrives by lo with its route known; a TUN device's is taken for a forgery."""
    sock, peer = hosts.connect(version)
    capture.everything()
    with hosts.origin.entered():
        subprocess.run(["sysctl", "-q", "-w", *STRICT.split()], check=True)
        hosts.nft(hosts.origin, FIREWALL)
        isolation = Isolation("gap")
        isolation.hold([calls.flow_of(sock)])
        peer.send(b"caught")
        caught = wait_caught(capture, 1)
        isolation.release()
        with _tun() if way == "tun" else contextlib.closing(Injector()) as door:
            for packet in caught:
                door.give(packet)
            sock.settimeout(5 if way == "raw" else 0.1)
            if way == "raw":
                assert sock.recv(10) == b"caught"
            else:
                with pytest.raises(TimeoutError):
                    sock.recv(10)


@contextlib.contextmanager
def _tun() -> Iterator[_Tun]:
    tun = _Tun()
    try:
        yield tun
    finally:
        tun.file.close()


class _Tun:
    """A TUN device as the alternative would use it."""

    def __init__(self) -> None:
        import fcntl
        import struct

        self.file = open("/dev/net/tun", "r+b", buffering=0)  # noqa: PTH123, SIM115
        fcntl.ioctl(self.file, 0x400454CA, struct.pack("16sH22x", b"gap0", 0x1001))  # TUNSETIFF TUN, NO_PI
        ip("link set gap0 up")

    def give(self, segment: packets.Segment) -> None:
        self.file.write(segment.packet)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_socket_bound_to_a_device(hosts: GapHosts, capture: gap.Capture, version: int) -> None:
    with hosts.origin.entered():
        listener = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        listener.bind((SERVICE[version], PORT))
        listener.listen()
        devices = {ipaddress.ip_address(SERVICE[version]): socket.if_nametoindex("eth0")}
        injector = Injector()
        injector.by_device(devices)
    with hosts.peer.entered():
        peer = socket.create_connection((SERVICE[version], PORT))
    sock, _ = listener.accept()
    listener.close()
    hosts.sockets += [sock, peer]
    capture.everything()
    with hosts.origin.entered():
        isolation = Isolation("gap")
        isolation.hold([calls.flow_of(sock)])
        peer.send(b"caught")
        injector.give(wait_caught(capture, 1)[0], marked=True)
        sock.settimeout(5)
        assert sock.recv(10) == b"caught"
        isolation.release()
    assert hosts.counters(hosts.origin)["TcpOutRsts"] == 0
    injector.close()


# --- the forwarder -----------------------------------------------------------------------------------------


def test_forwarder(hosts: GapHosts, capture: gap.Capture) -> None:
    sock, peer = hosts.connect(4)
    capture.everything()
    sent: list[list[bytes]] = []
    forwarder = gap.Forwarder(capture, sent.append)
    peer.send(b"1")
    assert sock.recv(1)
    assert sent == []
    forwarder.catch_up()
    assert [len(one) for one in sent] == [1]
    forwarder.start()
    peer.send(b"2")
    eventually(lambda: len(sent) == 2, "the second message")
    began = time.monotonic()
    forwarder.linger(0.05, 1)
    assert 0.02 < time.monotonic() - began < 0.9
    forwarder.stop()
    forwarder.stop()
    assert (forwarder.packets, capture.dropped) == (2, 0)
    assert capture.descriptors() == []


def test_a_lost_link_ends_the_forwarder_quietly(hosts: GapHosts, capture: gap.Capture) -> None:
    _sock, peer = hosts.connect(4)
    capture.everything()

    def lost(_: list[bytes]) -> None:
        raise TransportError("the link is lost")

    forwarder = gap.Forwarder(capture, lost)
    forwarder.start()
    peer.send(b"x")
    assert forwarder._thread is not None
    forwarder._thread.join(5)
    assert not forwarder._thread.is_alive()
    forwarder.linger(1, 5)
    forwarder.catch_up()
    forwarder.stop()
    assert forwarder.packets == 0
