"""Packets of the gap: what a packet socket sees, what a raw socket's packets reach; judged by nstat."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import peer_view
import pytest
from gap_hosts import PORT, SERVICE, GapHosts, Moving, end
from netns import eventually, ip

from migrate import gap, packets
from migrate.errors import TransportError
from migrate.inject import Injector, Inlet
from migrate.pb.session_pb2 import GapPackets
from tcpcp import endpoint, nft
from tcpcp.ici import Endpoint, State
from tcpcp.isolation import Isolation

VERSIONS = (4, 6)


@pytest.fixture
def hosts() -> Iterator[GapHosts]:
    hosts = GapHosts()
    yield hosts
    nft.close()
    hosts.close()


@pytest.fixture
def capture(hosts: GapHosts) -> Iterator[gap.Capture]:
    """On the origin, for the service's addresses."""
    with hosts.origin.entered():
        capture = gap.Capture(ipaddress.ip_address(one) for one in SERVICE.values())
    yield capture
    capture.close()


@pytest.fixture
def injector(hosts: GapHosts) -> Iterator[Injector]:
    """On the destination."""
    with hosts.destination.entered():
        injector = Injector()
    yield injector
    assert injector.refused == 0
    injector.close()


def wait_caught(capture: gap.Capture, count: int) -> list[bytes]:
    """The next *count* packets."""
    caught: list[bytes] = []

    def enough() -> bool:
        caught.extend(capture.take())
        return len(caught) >= count

    eventually(enough, f"{count} packets")
    assert len(caught) == count
    return caught


def receive_all(sock: socket.socket, size: int) -> bytes:
    """The next *size* bytes."""
    received = b""
    while len(received) < size:
        piece = sock.recv(size - len(received))
        assert piece
        received += piece
    return received


def payloads(caught: list[bytes]) -> bytes:
    return b"".join(segment.payload for segment in map(packets.parse, caught) if segment)


def since(hosts: GapHosts, before: dict[str, int]) -> dict[str, int]:
    """What the peer's TCP did out of the ordinary since *before*."""
    names = ("TcpRetransSegs", "TcpExtTCPTimeouts", "TcpExtTCPLossProbes", "TcpEstabResets", "TcpOutRsts")
    now = hosts.counters(hosts.peer)
    return {name: now[name] - before[name] for name in names if now[name] != before[name]}


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
        isolation.hold([endpoint.flow_of(sock)])
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
        ready = [packets.parse(one) for one in capture._made_ready(data, status)]
        assert all(one is not None and packets.intact(one) for one in ready)
        assert payloads(capture._made_ready(data, status)) == segment.payload


def test_a_damaged_packet_is_not_made_good(hosts: GapHosts, capture: gap.Capture) -> None:
    sock, _peer = hosts.connect(4)
    flow = endpoint.flow_of(sock)
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
    capture.only([endpoint.flow_of(sock)], [])
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
    segment = packets.parse(syn)
    assert segment is not None
    assert segment.opens


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
        isolation.hold([endpoint.flow_of(sock)])
        peer.send(b"caught")
        caught = wait_caught(capture, 1)
        isolation.release()
        with _tun() if way == "tun" else contextlib.closing(Injector()) as door:
            for packet in caught:
                door.give(packet)
            sock.settimeout(0.1)
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

    def give(self, packet: bytes) -> None:
        self.file.write(packet)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_socket_bound_to_a_device(hosts: GapHosts, capture: gap.Capture, version: int) -> None:
    with hosts.origin.entered():
        listener = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        listener.bind((SERVICE[version], PORT))
        listener.listen()
        devices = {ipaddress.ip_address(SERVICE[version]): socket.if_nametoindex("eth0")}
        injector = Injector(devices)
    with hosts.peer.entered():
        peer = socket.create_connection((SERVICE[version], PORT))
    sock, _ = listener.accept()
    listener.close()
    hosts.sockets += [sock, peer]
    capture.everything()
    with hosts.origin.entered():
        isolation = Isolation("gap")
        isolation.hold([endpoint.flow_of(sock)])
        peer.send(b"caught")
        injector.give(wait_caught(capture, 1)[0], marked=True)
        sock.settimeout(5)
        assert sock.recv(10) == b"caught"
        isolation.release()
    assert hosts.counters(hosts.origin)["TcpOutRsts"] == 0
    injector.close()


# --- the way of a packet -----------------------------------------------------------------------------------


def gap_of(hosts: GapHosts, version: int, capture: gap.Capture) -> tuple[Moving, socket.socket]:
    """A connection whose gap has begun, and the peer's end of it."""
    sock, peer = hosts.connect(version)
    capture.everything()
    moving = Moving.get(hosts, version, sock)
    capture.only([moving.flow], [])
    return moving, peer


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_in_the_gap_is_answered_at_its_end(
    hosts: GapHosts, capture: gap.Capture, injector: Injector, version: int
) -> None:
    moving, peer = gap_of(hosts, version, capture)
    before, inlet = hosts.counters(hosts.peer), Inlet(injector)
    peer.send(b"ask")
    moving.rebuild()
    inlet.add(wait_caught(capture, 1))
    inlet.fill()
    made = moving.activate()
    inlet.open()
    assert made.recv(10) == b"ask"
    made.send(b"answer")
    assert peer.recv(10) == b"answer"
    assert since(hosts, before) == {}


def test_without_it_the_peer_repeats_itself(hosts: GapHosts, capture: gap.Capture) -> None:
    moving, peer = gap_of(hosts, 4, capture)
    before = hosts.counters(hosts.peer)
    peer.send(b"ask")
    wait_caught(capture, 1)
    moving.rebuild()
    made = moving.activate()
    assert made.recv(10) == b"ask"
    assert since(hosts, before)["TcpRetransSegs"] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bulk_sender_goes_on_at_once(
    hosts: GapHosts, capture: gap.Capture, injector: Injector, version: int
) -> None:
    """The probe that ends repair mode comes from before the window: its acknowledgement does not count
    (tcp_validate_incoming()). What was filled in has to be acknowledged by something else."""
    moving, peer = gap_of(hosts, version, capture)
    before, inlet = hosts.counters(hosts.peer), Inlet(injector)
    data = bytes(range(256)) * 400
    sender = threading.Thread(target=peer.sendall, args=(data,))
    sender.start()
    eventually(lambda: select.select(capture.descriptors(), [], [], 0)[0], "the first packet")
    moving.rebuild()
    inlet.add(capture.take())
    inlet.fill()
    made = moving.activate()
    inlet.open()
    inlet.add(capture.take())
    received = receive_all(made, len(data))
    sender.join()
    assert received == data
    after = since(hosts, before)
    assert after.get("TcpRetransSegs", 0) == after.get("TcpExtTCPTimeouts", 0) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_an_end_in_the_gap(hosts: GapHosts, capture: gap.Capture, injector: Injector, version: int) -> None:
    """With two packets on their way the peer sends a loss probe after 2 round trips: nobody can help that."""
    moving, peer = gap_of(hosts, version, capture)
    before, inlet = hosts.counters(hosts.peer), Inlet(injector)
    peer.send(b"last")
    peer.shutdown(socket.SHUT_WR)
    inlet.add(wait_caught(capture, 2))
    moving.rebuild()
    inlet.add(capture.take())
    inlet.fill()
    made = moving.activate()
    inlet.open()
    assert made.recv(10) == b"last"
    assert made.recv(10) == b""
    eventually(lambda: _state(peer) == State.FIN_WAIT2, "the FIN is acknowledged")
    made.close()
    assert peer.recv(10) == b""
    after = since(hosts, before)
    assert after.pop("TcpRetransSegs", 0) <= after.pop("TcpExtTCPLossProbes", 0) <= 1
    assert after == {}


def _state(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def test_a_connection_that_is_half_closed_already(
    hosts: GapHosts, capture: gap.Capture, injector: Injector
) -> None:
    """No probe ends its repair mode, so nothing would acknowledge what had been filled in."""
    sock, peer = hosts.connect(4)
    sock.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    eventually(lambda: _state(sock) == State.FIN_WAIT2, "our FIN is acknowledged")
    capture.everything()
    moving = Moving.get(hosts, 4, sock)
    before, inlet = hosts.counters(hosts.peer), Inlet(injector)
    peer.send(b"still")
    moving.rebuild()
    inlet.add(wait_caught(capture, 1))
    inlet.fill([moving.flow])
    made = moving.activate()
    inlet.open()
    assert made.recv(10) == b"still"
    peer.close()
    assert made.recv(10) == b""
    eventually(lambda: since(hosts, before) == {}, "no retransmission")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_new_connection_in_the_gap(
    hosts: GapHosts, capture: gap.Capture, injector: Injector, version: int
) -> None:
    """Its SYN would be repeated after a second."""
    hosts.listen(version).close()
    capture.syns([end(version)])
    with hosts.origin.entered():
        isolation = Isolation("gap")
        isolation.hold(listeners=[end(version)], syn_only=True)
    with hosts.peer.entered():
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        peer = socket.socket(family)
    peer.setblocking(False)
    before, inlet, began = hosts.counters(hosts.peer), Inlet(injector), time.monotonic()
    peer.connect_ex((SERVICE[version], PORT))
    caught = wait_caught(capture, 1)
    capture.everything()
    hosts.withdraw(version)
    with hosts.destination.entered():
        hosts.have(version)
        listener = socket.create_server((SERVICE[version], PORT), family=family)
    hosts.announce(version)
    inlet.add(caught)
    inlet.fill()
    inlet.open()
    listener.settimeout(5)
    sock, _ = listener.accept()
    assert time.monotonic() - began < 0.9
    assert since(hosts, before) == {}
    sock.close()
    peer.close()


@pytest.mark.parametrize("forwarding", (0, 1))
@pytest.mark.parametrize("version", VERSIONS)
def test_late_packets_are_forwarded_and_draw_no_reset(
    hosts: GapHosts, capture: gap.Capture, injector: Injector, version: int, forwarding: int
) -> None:
    """The peer has not heard that the address has moved. Where the origin forwards, both ways are taken."""
    moving, peer = gap_of(hosts, version, capture)
    before, inlet = hosts.counters(hosts.peer), Inlet(injector)
    with hosts.origin.entered():
        keys = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
        subprocess.run(["sysctl", "-q", "-w", f"{keys[version]}={forwarding}"], check=True)
        mac = ip("-o link show eth0").split("link/ether ")[1].split()[0]
    moving.rebuild()
    hosts.know_the_peer(version)
    with hosts.peer.entered():
        ip(f"neigh replace {SERVICE[version]} lladdr {mac} dev eth0 nud permanent")
    made = moving.activate()
    inlet.open()
    forwarder = gap.Forwarder(capture, lambda message: inlet.add(message.packets))
    forwarder.start()
    for _ in range(20):
        peer.send(b"late")
        assert made.recv(10) == b"late"
        made.send(b"answer")
        assert peer.recv(10) == b"answer"
    forwarder.stop()
    # A host that forwards also tells the peer of the better way, which may believe it.
    assert forwarding or forwarder.packets >= 20
    after = since(hosts, before)
    assert after.get("TcpEstabResets", 0) == after.get("TcpOutRsts", 0) == 0
    assert hosts.counters(hosts.origin)["TcpOutRsts"] == 0


# --- the forwarder -----------------------------------------------------------------------------------------


def test_forwarder(hosts: GapHosts, capture: gap.Capture) -> None:
    sock, peer = hosts.connect(4)
    capture.everything()
    sent: list[GapPackets] = []
    forwarder = gap.Forwarder(capture, sent.append)
    peer.send(b"1")
    assert sock.recv(1)
    assert sent == []
    forwarder.catch_up()
    assert [len(one.packets) for one in sent] == [1]
    forwarder.start()
    peer.send(b"2")
    eventually(lambda: len(sent) == 2, "the second message")
    began = time.monotonic()
    forwarder.linger(0.05, 1)
    assert 0.02 < time.monotonic() - began < 0.5
    forwarder.stop()
    forwarder.stop()
    assert (forwarder.packets, capture.dropped) == (2, 0)
    assert capture.descriptors() == []


def test_a_lost_link_ends_the_forwarder_quietly(hosts: GapHosts, capture: gap.Capture) -> None:
    _sock, peer = hosts.connect(4)
    capture.everything()

    def lost(_: GapPackets) -> None:
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


# --- the whole, as the peer sees it ------------------------------------------------------------------------


@contextlib.contextmanager
def captured(hosts: GapHosts, path: Path) -> Iterator[None]:
    """What the peer's device sees during the block, in *path*."""
    command = ["tcpdump", "-i", "eth0", "-s", "0", "-U", "--immediate-mode", "-w", str(path), "tcp"]
    with hosts.peer.entered():
        tcpdump = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tcpdump.stderr is not None
    assert "listening" in tcpdump.stderr.readline()
    try:
        yield
    finally:
        tcpdump.terminate()
        tcpdump.communicate()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_peers_view(hosts: GapHosts, injector: Injector, tmp_path: Path, version: int) -> None:
    """A request in the gap, and bulk data both ways after it: nothing that an endpoint may not do."""
    with captured(hosts, tmp_path / "peer.pcap"):
        with hosts.origin.entered():
            capture = gap.Capture()
        moving, peer = gap_of(hosts, version, capture)
        inlet, began = Inlet(injector), time.time()
        peer.send(b"ask")
        inlet.add(wait_caught(capture, 1))
        moving.rebuild()
        inlet.fill()
        made = moving.activate()
        inlet.open()
        assert made.recv(10) == b"ask"
        for sender, receiver in ((made, peer), (peer, made)):
            sender.sendall(bytes(range(256)) * 200)
            receive_all(receiver, 256 * 200)
        made.close()
        assert peer.recv(1) == b""
        peer.close()
        capture.close()
    view = peer_view.judge(tmp_path / "peer.pcap", [began], most_retransmissions=0)
    assert view["ok"], peer_view.table(view)
    ((up, down),) = view["connections"]
    assert (up["data_bytes"], down["data_bytes"]) == (3 + 256 * 200, 256 * 200)
    # The wake-up probe looks like a keepalive; its answer repeats an acknowledgement.
    flags = peer_view.tshark_flags(tmp_path / "peer.pcap")
    bad = ("retransmission", "out-of-order", "previous segment", "unseen", "zero")
    assert not [text for text in flags if any(word in text.lower() for word in bad)], flags
