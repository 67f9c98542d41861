"""Packets of the gap on their way to a rebuilt connection; judged by nstat and tshark on the peer."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gap_hosts import PORT, SERVICE, GapHosts, Moving, end, receive_all, since, wait_caught
from harness import peer_view
from netns import eventually, ip

from migrate.gap import capture as gap
from migrate.gap import packets
from migrate.gap.inject import Injector, Inlet
from tcpcp.endpoint.isolation import Flow, Isolation
from tcpcp.record.ici import Endpoint, State

pytestmark = pytest.mark.alone

VERSIONS = (4, 6)


@pytest.fixture
def hosts(gap_hosts: GapHosts) -> GapHosts:
    return gap_hosts


def inlet_of(injector: Injector, flows: list[Flow], listeners: list[Endpoint] | None = None) -> Inlet:
    inlet = Inlet(injector)
    inlet.only(flows, listeners or [])
    return inlet


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
    before, inlet = hosts.counters(hosts.peer), inlet_of(injector, [moving.flow])
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
    inlet = inlet_of(injector, [moving.flow])
    data = bytes(range(256)) * 400
    sender = threading.Thread(target=peer.sendall, args=(data,))
    before = hosts.counters(hosts.peer)
    sender.start()
    # Its probe for loss, by its clock, goes to the origin too: nobody catches at the destination here.
    eventually(lambda: since(hosts, before).get("TcpExtTCPLossProbes"), "all that the peer sends unanswered")
    moving.rebuild()
    inlet.add(capture.take())
    inlet.fill()
    before = hosts.counters(hosts.peer)
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
    before, inlet = hosts.counters(hosts.peer), inlet_of(injector, [moving.flow])
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
    before, inlet = hosts.counters(hosts.peer), inlet_of(injector, [moving.flow])
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
    before, inlet, began = (
        hosts.counters(hosts.peer),
        inlet_of(injector, [], [end(version)]),
        time.monotonic(),
    )
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


def test_packets_of_other_connections_do_not_get_in(
    hosts: GapHosts, capture: gap.Capture, injector: Injector
) -> None:
    """What the origin sends is checked: it could name any connection of this host."""
    moving, peer = gap_of(hosts, 4, capture)
    peer.send(b"ask")
    caught = wait_caught(capture, 1)
    moving.rebuild()
    inlet = inlet_of(injector, [Flow(moving.flow.local, Endpoint(moving.flow.peer.ip, 1))], [end(4, 1)])
    inlet.add([*caught, *packets.parse_all([b"", b"\x45", bytes(60)])])
    inlet.fill()
    moving.activate().setblocking(False)
    inlet.open()
    inlet.add(caught)
    assert inlet.given == 0
    peer.close()


@pytest.mark.parametrize("forwarding", (0, 1))
@pytest.mark.parametrize("version", VERSIONS)
def test_late_packets_are_forwarded_and_draw_no_reset(
    hosts: GapHosts, capture: gap.Capture, injector: Injector, version: int, forwarding: int
) -> None:
    """The peer has not heard that the address has moved. Where the origin forwards, both ways are taken."""
    moving, peer = gap_of(hosts, version, capture)
    before, inlet = hosts.counters(hosts.peer), inlet_of(injector, [moving.flow])
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
    forwarder = gap.Forwarder(capture, lambda caught: inlet.add(packets.parse_all(caught)))
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
        inlet, began = inlet_of(injector, [moving.flow]), time.time()
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
