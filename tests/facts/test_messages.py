"""Every message says which connection it is about, or where there is none, which socket."""

from __future__ import annotations

import dataclasses
import ipaddress
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from netns import Hosts
from passing import wait_state

import tcpcp
from migrate.inventory import of_host
from tcpcp.criu import stages
from tcpcp.endpoint import congestion, queues, raw_segment, socket_options
from tcpcp.errors import IciError, KernelError, TcpcpError, Unfed, Unsupported
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Endpoint, State

KINDS = ("v4", "v6", "mapped")

HOLD_NEW = """
import socket, sys, tcpcp
try:
    tcpcp.hold_new(socket.socket(fileno=int(sys.argv[1])))
except tcpcp.PermissionDenied as exc:
    print(exc)
"""


def name_of(hosts: Hosts, sock: socket.socket, peer: socket.socket) -> str:
    """The connection, made up of what both programs see."""
    ipv6 = peer.family == socket.AF_INET6
    both = (hosts.here_ip, hosts.there_ip)
    ours, theirs = (f"[{ips[6]}]" if ipv6 else ips[4] for ips in both)
    return f"{ours}:{sock.getsockname()[1]} - {theirs}:{peer.getsockname()[1]}"


def listening(hosts: Hosts) -> socket.socket:
    with hosts.here.entered():
        return socket.create_server((hosts.here_ip[4], 0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_is_named_as_an_ici_is(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    expected = name_of(hosts, sock, peer)
    assert tcp_repair.describe(sock) == expected
    with hosts.here.entered():
        assert str(tcpcp.get(sock)) == expected
        tcpcp.resume(sock)


@pytest.mark.parametrize("kind", KINDS)
def test_also_when_it_has_been_reset(hosts: Hosts, kind: str) -> None:
    """getpeername() tells nothing any more."""
    sock, peer = hosts.connect(kind)
    expected = name_of(hosts, sock, peer)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("2i", 1, 0))
    peer.close()
    wait_state(sock, State.CLOSE)
    assert tcp_repair.describe(sock) == expected
    with hosts.here.entered(), pytest.raises(TcpcpError) as caught:
        tcpcp.get(sock)
    assert expected in str(caught.value)


def fresh(family: socket.AddressFamily) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM)


@pytest.mark.parametrize("family", (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX))
def test_a_socket_without_addresses_is_named_by_its_descriptor(family: socket.AddressFamily) -> None:
    with fresh(family) as sock:
        expected = f"a socket without addresses (descriptor {sock.fileno()})"
        assert tcp_repair.describe(sock) == expected


def test_a_bound_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert tcp_repair.describe(sock) == f"127.0.0.1:{port} - ? (descriptor {sock.fileno()})"


ASKED: tuple[Callable[[socket.socket], object], ...] = (
    tcp_repair.get_inq,
    tcp_repair.get_info,
    lambda sock: tcp_repair.set_repair(sock, tcp_repair.ON),
    lambda sock: stages.Extract([], {1: sock}, [], []).reusing(),
)


@pytest.mark.parametrize("ask", ASKED)
def test_a_closed_socket(ask: Callable[[socket.socket], object]) -> None:
    with fresh(socket.AF_INET) as sock:
        sock.close()
        with pytest.raises(KernelError, match="a closed socket: Bad file descriptor"):
            ask(sock)


@pytest.mark.parametrize("call", (tcpcp.max_size, tcpcp.drain, tcpcp.hold_new))
def test_a_closed_socket_of_a_program(call: Callable[[socket.socket], object]) -> None:
    with fresh(socket.AF_INET) as sock:
        sock.close()
        with pytest.raises(Unsupported, match="the socket is closed"):
            call(sock)


def test_what_does_not_listen(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    for call in (tcpcp.drain, tcpcp.hold_new):
        with hosts.here.entered(), pytest.raises(Unsupported) as caught:
            call(sock)
        assert str(caught.value) == f"{name_of(hosts, sock, peer)}: not a listening socket"


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """This process can open only *count* more."""
    with fresh(socket.AF_INET) as one:
        lowest = one.fileno()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_listener_whose_queue_cannot_be_accepted(hosts: Hosts) -> None:
    """There is a descriptor for one of two connections; after the error neither is left."""
    with listening(hosts) as sock:
        with hosts.there.entered():
            peers = [socket.create_connection(sock.getsockname()) for _ in range(2)]
        with hosts.here.entered(), descriptors_left(1), pytest.raises(KernelError) as caught:
            tcpcp.drain(sock)
        expected = f"accept for {hosts.here_ip[4]}:{sock.getsockname()[1]} - ? (descriptor {sock.fileno()})"
        assert str(caught.value) == f"{expected}: Too many open files"
        peers[0].settimeout(5)
        assert peers[0].recv(1) == b""


def test_a_listener_that_cannot_be_held(hosts: Hosts) -> None:
    with listening(hosts) as sock, hosts.here.entered():
        done = subprocess.run(
            ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-all"]
            + [sys.executable, "-c", HOLD_NEW, str(sock.fileno())],
            pass_fds=[sock.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
        expected = f"{hosts.here_ip[4]}:{sock.getsockname()[1]} - ? (descriptor {sock.fileno()}): "
    assert done.stdout.startswith(expected)


def test_closed_by_its_peer_after_the_dump(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    expected = name_of(hosts, sock, peer)
    peer.sendall(b"unread")
    peer.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSE_WAIT)
    sock.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSE)
    with pytest.raises(Unsupported) as caught:
        list(stages.Extract([], {1: sock}, [], []).get())
    assert str(caught.value).startswith(f"{expected}: was closed by its peer")


@pytest.mark.parametrize(
    ("local", "peer", "expected"),
    (
        ("192.0.2.1", "192.0.2.2", "192.0.2.1:80 - 192.0.2.2:4000"),
        ("2001:db8::1", "2001:db8::2", "[2001:db8::1]:80 - [2001:db8::2]:4000"),
    ),
)
def test_a_segment_that_cannot_be_fed(hosts: Hosts, local: str, peer: str, expected: str) -> None:
    """There is no such address here."""
    receiver, sender = Endpoint(ipaddress.ip_address(local), 80), Endpoint(ipaddress.ip_address(peer), 4000)
    packet = raw_segment.build(sender, receiver, seq=1, ack=2, flags=raw_segment.ACK, window=0)
    with hosts.here.entered(), pytest.raises(Unfed) as caught:
        raw_segment.feed(packet, receiver)
    assert str(caught.value).startswith(f"{expected}: ")


def test_a_window_that_cannot_be_given(hosts: Hosts) -> None:
    if not congestion.prepare():
        pytest.skip(f"the kernel refuses struct_ops: {congestion._refused}")
    sock, peer = hosts.connect()
    with closing(congestion.Setter()) as setter:
        setter._values = sock.fileno()  # which is no map
        with pytest.raises(KernelError) as caught:
            setter.give(sock, "reno", 300, 200, False)
    assert caught.value.connection == name_of(hosts, sock, peer)


def test_an_option_that_is_none(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    with pytest.raises(IciError) as caught:
        socket_options.apply_all(sock, {"SO_NONE": 1})
    assert caught.value.problems[0].startswith(f"{name_of(hosts, sock, peer)}: ")


def test_an_interface_whose_name_is_no_text(hosts: Hosts) -> None:
    """To the kernel a name is any bytes (net/core/dev.c dev_valid_name())."""
    name = b"a\xffb"
    with hosts.here.entered():
        subprocess.run([b"ip", b"link", b"set", b"here0", b"name", name], check=True)
        subprocess.run([b"ip", b"link", b"set", name, b"up"], check=True)
    sock, peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name + b"\0")
    with hosts.here.entered():
        with pytest.raises(Unsupported) as caught:
            tcpcp.get(sock)
        assert str(caught.value).startswith(f"{name_of(hosts, sock, peer)}: ")
        assert "not UTF-8" in str(caught.value)
        (found,) = [
            one for one in of_host.inspect(criu_problem=lambda path: "").interfaces if one.name != "lo"
        ]
        assert found.name.startswith("interface ")
        assert f"{hosts.here_ip[4]}/24" in found.addresses
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"\0")
        tcpcp.get(sock)
        tcpcp.resume(sock)


@pytest.mark.parametrize("queue", ("send", "receive"))
def test_a_queue_that_is_longer_than_an_ici_holds(
    hosts: Hosts, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As create() would refuse it: here, where it can go on."""
    monkeypatch.setattr(queues, "MAX_QUEUE_BYTES", 5)
    sock, peer = hosts.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    writer, other = (sock, peer) if queue == "send" else (peer, sock)
    writer.sendall(b"6bytes")
    if queue == "receive":
        assert sock.recv(6, socket.MSG_PEEK | socket.MSG_WAITALL) == b"6bytes"
    with hosts.here.entered():
        with pytest.raises(Unsupported, match="an ICI holds 5") as caught:
            tcpcp.get(sock)
        assert str(caught.value).startswith(f"{name_of(hosts, sock, peer)}: 6 bytes")
    assert not tcp_repair.get_repair(sock)
    assert other.recv(10) == b"6bytes"


@pytest.mark.parametrize(
    "field", ("options", "local", "negotiated", "send_queue", "ipv6_socket", "state", "snd_nxt")
)
def test_a_field_that_is_none(hosts: Hosts, field: str) -> None:
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        broken = dataclasses.replace(ici, **{field: None})
        with pytest.raises(IciError, match=field):
            tcpcp.create(broken)
        tcpcp.resume(sock)
