"""What a program that passes connections itself may rely on, beside the states and queues of test_endpoint."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from drain import Drain
from netns import Hosts, eventually, ip
from passing import assert_no_reset, deaf, pass_on, state_of, wait_state
from wire import captured

import tcpcp
from tcpcp.endpoint import (
    feeding,
    filling,
    holding,
    inspection,
    isolation,
    raw_segment,
    socket_ends,
)
from tcpcp.errors import IciError, Unsupported
from tcpcp.kernel import bpf, socket_filter, tcp_repair
from tcpcp.record.ici import Endpoint, Ici, State

KINDS = ("v4", "v6", "mapped")


def passed(hosts: Hosts, sock: socket.socket) -> Ici:
    """The ICI of *sock*, which is gone."""
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
    return ici


# --- the API --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_passed_again_and_back(hosts: Hosts, kind: str) -> None:
    """A passed connection is an ordinary socket: ten times over, as bytes, with data waiting each time."""
    sock, peer = hosts.connect(kind)
    for number in range(10):
        peer.sendall(b"%d" % number)
        eventually(lambda sock=sock: tcp_repair.get_inq(sock) == 1, "arrived")
        image = tcpcp.dumps(passed(hosts, sock))
        with hosts.here.entered():
            sock = tcpcp.create(tcpcp.loads(image))
            tcpcp.activate(sock)
        sock.settimeout(5)
        assert sock.recv(10) == b"%d" % number
        sock.sendall(b"answer")
        assert peer.recv(10) == b"answer"
    assert_no_reset(hosts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packet_that_was_past_the_filter_draws_no_reset(hosts: Hosts, kind: str) -> None:
    """Other filters, or a virtual processor that does not run, may keep it until the socket is gone.

    The mark has it pass the filter. The kernel answers, it says; but that does not leave.
    """
    sock, _peer = hosts.connect(kind)
    local, peer, _ = socket_ends.ends(sock)
    ici = passed(hosts, sock)
    late = raw_segment.build(peer, local, seq=ici.rcv_nxt, ack=ici.snd_nxt, flags=raw_segment.ACK, window=100)
    with captured(hosts.here) as wire:
        with hosts.here.entered():
            raw_segment.feed(late, local)
        eventually(lambda: hosts.counters(hosts.here)["TcpOutRsts"] == 1, "answered")
        assert [one for one in wire.segments() if one.sport == local.port] == []
    with hosts.here.entered():
        tcpcp.activate(tcpcp.create(ici))
    assert hosts.counters(hosts.there)["TcpEstabResets"] == 0


def test_sizes(hosts: Hosts) -> None:
    """Of an ICI exactly, of a socket an upper bound; both known before anything is sent."""
    sock, peer = hosts.connect()
    peer.sendall(b"x" * 30_000)
    eventually(lambda: tcp_repair.get_inq(sock) == 30_000, "arrived")
    bound = tcpcp.size(sock)
    ici = passed(hosts, sock)
    assert tcpcp.size(ici) == len(tcpcp.dumps(ici)) <= bound < 30_000 + 4096


def test_in_an_event_loop(hosts: Hosts) -> None:
    """Nothing blocks on the network: the sockets stay non-blocking, and the loop takes them as they come."""
    pairs = [hosts.connect() for _ in range(20)]
    for sock, peer in pairs:
        sock.setblocking(False)
        peer.setblocking(False)

    async def serve(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, (await loop.sock_recv(sock, 100)).upper())

    async def main() -> list[bytes]:
        loop = asyncio.get_running_loop()
        with hosts.here.entered():  # no await inside: the namespace is the thread's
            icis = tcpcp.get_many([sock for sock, _ in pairs])
            tcpcp.release_many([sock for sock, _ in pairs])
            made = tcpcp.create_many(icis)
            for one in made:
                one.setblocking(False)
            tcpcp.activate_many(made)
        servers = [asyncio.create_task(serve(one)) for one in made]
        for _, peer in pairs:
            await loop.sock_sendall(peer, b"hello")
        answers = [await loop.sock_recv(peer, 100) for _, peer in pairs]
        await asyncio.gather(*servers)
        return answers

    assert asyncio.run(asyncio.wait_for(main(), 10)) == [b"HELLO"] * len(pairs)
    assert_no_reset(hosts)


def test_a_non_blocking_socket_bound_beforehand(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    ici = passed(hosts, sock)
    with hosts.here.entered():
        given = socket.socket()
        given.setblocking(False)
        given.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        given.bind((str(ici.local.ip), ici.local.port))
        assert tcpcp.create(ici, sock=given) is given
        tcpcp.activate(given)
    given.send(b"1")
    assert peer.recv(1) == b"1"


# --- nothing is tried that must not be (paper 7.1) ------------------------------------------------------


def not_of_tcp(call: Callable[..., None]) -> Callable[..., None]:
    """*call*, for a socket that only asks whether an address exists."""

    def made(sock: socket.socket, *words: object) -> None:
        assert sock.type == socket.SOCK_DGRAM, "a call"
        call(sock, *words)

    return made


def test_everything_is_refused_before_the_first_call(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    sock, _ = hosts.connect()
    ici = passed(hosts, sock)
    for name in ("set_repair", "set_int", "set_bytes"):
        monkeypatch.setattr(tcp_repair, name, not_of_tcp(getattr(tcp_repair, name)))
    monkeypatch.setattr(holding, "isolate", lambda *_: pytest.fail("a filter"))
    wrong = {
        "state is LISTEN": dataclasses.replace(ici, state=State.LISTEN),
        "is multicast": dataclasses.replace(ici, peer=Endpoint(ip_address("224.0.0.1"), 1)),
        "rcv_wnd": dataclasses.replace(ici, window=dataclasses.replace(ici.window, rcv_wnd=2**31)),
        "SO_NONSENSE": dataclasses.replace(ici, options={"SO_NONSENSE": 1}),
        "10.9.0.77 does not exist on this host": ici.at("10.9.0.77"),
        "device nowhere0 does not exist": dataclasses.replace(ici, device="nowhere0"),
        "is not available here": dataclasses.replace(
            ici, congestion=dataclasses.replace(ici.congestion, algorithm="nonsense")
        ),
        "the limit is": dataclasses.replace(ici, receive_queue=tcpcp.ReceiveQueue(b"x" * (129 << 20))),
    }
    with hosts.here.entered():
        for says, one in wrong.items():
            with pytest.raises(IciError, match=says):
                tcpcp.create(one)
        with pytest.raises(IciError, match="is there twice"):
            tcpcp.create_many([ici, ici])
        # One bad ICI, and none of the batch is built.
        with pytest.raises(IciError):
            tcpcp.create_many([ici, wrong["state is LISTEN"]])


def test_an_address_that_the_host_is_not_sure_of_yet(hosts: Hosts) -> None:
    """IPv6 addresses are looked for at the neighbours first; a service address is added with `nodad`."""
    sock, _ = hosts.connect("v6")
    ici = passed(hosts, sock)
    address = f"{hosts.here_ip[6]}/64 dev here0"
    with hosts.here.entered():
        ip(f"addr del {address}")
        with pytest.raises(IciError, match="does not exist"):
            tcpcp.create(ici)
        ip(f"addr add {address}")
        with pytest.raises(IciError, match="is tentative.*nodad"):
            tcpcp.create(ici)
        ip(f"addr del {address}")
        ip(f"addr add {address} nodad")
        tcpcp.release(tcpcp.create(ici))


UNPRIVILEGED = """
import socket, sys
import tcpcp
from tcpcp.record.codec import loads
ici = loads(open(sys.argv[1], "rb").read())
sock = socket.socket(fileno=int(sys.argv[2]))
for call, argument in ((tcpcp.get, sock), (tcpcp.create, ici)):
    try:
        call(argument)
    except tcpcp.PermissionDenied as error:
        print(error)
"""


def test_without_the_capability(hosts: Hosts, tmp_path: object) -> None:
    """A clear error from both calls, and the connection goes on."""
    other, _ = hosts.connect()
    ici = passed(hosts, other)
    sock, peer = hosts.connect()
    image = f"{tmp_path}/one.ici"
    with open(image, "wb") as file:  # noqa: PTH123
        file.write(tcpcp.dumps(ici))
    with hosts.here.entered():
        before = isolation.tables()
        done = subprocess.run(
            ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-all"]
            + [sys.executable, "-c", UNPRIVILEGED, image, str(sock.fileno())],
            pass_fds=[sock.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
        assert isolation.tables() == before
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done
    assert all("CAP_NET_ADMIN" in line for line in lines)
    sock.sendall(b"goes on")
    assert peer.recv(100) == b"goes on"


# --- closed, with bytes still to be read ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_closed_with_bytes_to_read(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    content = os.urandom(50_000)
    peer.sendall(content)
    peer.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSE_WAIT)
    sock.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSE)
    ici, made = pass_on(hosts, sock)
    assert (ici.state, state_of(made)) == (State.CLOSE, State.CLOSE)
    Drain(made).finished(content)
    with pytest.raises(BrokenPipeError):
        made.send(b"x")
    with pytest.raises(OSError, match="not connected"):
        made.getpeername()
    assert_no_reset(hosts)


def test_what_is_closed_otherwise_is_refused(hosts: Hosts) -> None:
    """An error that the application has not been told of would be lost; and what was never connected."""
    sock, peer = hosts.connect()
    peer.sendall(b"unread")
    eventually(lambda: tcp_repair.get_inq(sock) == 6, "arrived")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    wait_state(sock, State.CLOSE)
    with hosts.here.entered():
        with pytest.raises(Unsupported, match="reset or timed out"):
            tcpcp.get(sock)
        with pytest.raises(Unsupported, match="never was"):
            tcpcp.get(socket.socket())
    assert sock.recv(100) == b"unread"


# --- what other tools lose ------------------------------------------------------------------------------

SO_ATTACH_BPF, SOCKET_FILTER, MOVE, EXIT = 50, 1, 0xB7, 0x95
#: ld [0]; ret #262144: takes every segment. ret #0: takes none.
TAKES, DROPS = bytes.fromhex("00200000000000000006000000040000"), bytes.fromhex("0006000000000000")


@pytest.mark.parametrize("program", (TAKES, DROPS), ids=("takes", "drops"))
def test_socket_filter(hosts: Hosts, program: bytes) -> None:
    """The application's own filter; that the kernel has it again is judged by what it does."""
    sock, peer = hosts.connect()
    assert socket_filter.get(sock) == b""
    socket_filter.attach(sock, program)
    ici, made = pass_on(hosts, sock)
    assert ici.socket_filter == socket_filter.get(made) == program
    peer.sendall(b"through")
    if program == TAKES:
        assert made.recv(100) == b"through"
    else:
        eventually(lambda: hosts.counters(hosts.there)["TcpRetransSegs"] > 1, "nobody answers")
        assert tcp_repair.get_inq(made) == 0


def test_an_ebpf_filter_is_refused(hosts: Hosts) -> None:
    """The kernel does not give the program out (net/core/filter.c sk_get_filter())."""
    sock, peer = hosts.connect()
    takes = bpf.instruction(MOVE, 0, value=1 << 18) + bpf.instruction(EXIT)
    program = bpf._load(SOCKET_FILTER, 0, 0, takes)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, program)
    os.close(program)
    with hosts.here.entered(), pytest.raises(Unsupported, match="eBPF"):
        tcpcp.get(sock)
    peer.sendall(b"as before")
    assert sock.recv(100) == b"as before"


@pytest.mark.parametrize("same_path", (False, True))
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_segment_echoes_a_timestamp_that_is_known(hosts: Hosts, kind: str, same_path: bool) -> None:
    """The peer's answer to a TSecr that is right is a round-trip time; judged by a capture of the wire."""
    sock, peer = hosts.connect(kind)
    ici = passed(hosts, sock)
    assert ici.timestamp is not None
    recent = tcp_repair.get_timestamp(peer)
    known = dataclasses.replace(ici, timestamp=dataclasses.replace(ici.timestamp, ts_recent=recent))
    with hosts.there.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        wire.settimeout(5)
    with hosts.here.entered():
        made = tcpcp.create(known, same_path=same_path)
        tcpcp.activate(made)
    assert first_echo(wire, made.getsockname()[1]) == recent
    made.sendall(b"1")
    assert peer.recv(1) == b"1"
    assert_no_reset(hosts)


def first_echo(wire: socket.socket, port: int) -> int:
    """TSecr of the first segment on *wire* from *port*."""
    while True:
        packet = wire.recv(2000)
        segment = packet[40:] if packet[0] >> 4 == 6 else packet[20:]
        if int.from_bytes(segment[:2], "big") == port:
            options = segment[20 : (segment[12] >> 4) * 4]
            assert options[:4] == b"\1\1\x08\x0a"
            return int.from_bytes(options[8:12], "big")


def test_an_image_that_describes_another_connection_is_built_beside_none(hosts: Hosts) -> None:
    """Hostile input reaches no connection that is there: its ends are taken (paper 7.3)."""
    sock, peer = hosts.connect()
    ici = passed(hosts, sock)
    with hosts.here.entered():
        made = tcpcp.create(ici)
        with pytest.raises(tcpcp.AddressInUse):
            tcpcp.create(dataclasses.replace(ici, snd_nxt=ici.snd_nxt ^ 1))
        tcpcp.activate(made)
    made.sendall(b"as before")
    assert peer.recv(100) == b"as before"


@pytest.mark.parametrize("trouble", ("ends are taken", "queue is refused"))
def test_of_a_batch_that_fails_nothing_is_left(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """No filter, no socket, no packet; the first of them can be built again."""
    (sock, peer), (other, _) = hosts.connect(), hosts.connect()
    first, second = passed(hosts, sock), passed(hosts, other)
    with hosts.here.entered():
        there = [tcpcp.create(second)] if trouble == "ends are taken" else []
        before = isolation.tables(), hosts.counters(hosts.here)["TcpOutSegs"]
        with monkeypatch.context() as patch, pytest.raises((tcpcp.KernelError, tcpcp.AddressInUse)):
            if not there:
                patch.setattr(filling, "fill_send_queue", refusing(second))
            tcpcp.create_many([first, second])
        assert (isolation.tables(), hosts.counters(hosts.here)["TcpOutSegs"]) == before
        tcpcp.release_many(there)
        made = tcpcp.create(first)
        tcpcp.activate(made)
    made.sendall(b"in spite of it")
    assert peer.recv(100) == b"in spite of it"


def refusing(ici: Ici) -> Callable[[socket.socket, Ici], None]:
    fill = filling.fill_send_queue

    def one(sock: socket.socket, given: Ici) -> None:
        if given == ici:
            raise tcpcp.KernelError("send(send queue)", errno.ENOMEM, str(ici))
        fill(sock, given)

    return one


def test_the_builder_says_when_it_needs_a_raw_socket(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    ici = passed(hosts, sock)
    assert not feeding.feeds(ici)
    assert feeding.feeds(dataclasses.replace(ici, state=State.CLOSE_WAIT))
    assert {*State} - {
        State.SYN_SENT,
        State.SYN_RECV,
        State.TIME_WAIT,
        State.LISTEN,
    } == inspection.READABLE


def test_deaf_peer_is_not_noticed(hosts: Hosts) -> None:
    """Passing needs no answer of the peer: create and activate return at once."""
    sock, _ = hosts.connect()
    with deaf(hosts.there):
        pass_on(hosts, sock)
