"""What no socket option reads or sets: a BPF program does, where the kernel lets us. The judge is ss."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from forking import ended, in_child
from netns import Hosts, eventually
from passing import assert_no_reset, pass_on, wait_state

import tcpcp
from tcpcp.endpoint import congestion, reader
from tcpcp.errors import KernelError
from tcpcp.kernel import bpf, fields, tcp_repair
from tcpcp.kernel.bpf import Struct, instruction
from tcpcp.record import seq
from tcpcp.record.ici import Ici, State

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
KINDS = ("v4", "v6", "mapped")
_SO_MAX_PACING_RATE = 47


@pytest.fixture(autouse=True)
def permitted() -> Iterator[None]:
    """The kernel lets us; else the tests say so."""
    if not congestion.prepare():
        pytest.skip(f"the kernel refuses struct_ops: {congestion._refused}")
    yield


def words(hosts: Hosts) -> str:
    """What ss says of the only connection here."""
    return hosts.ss(hosts.here, "-tinH state established")


@pytest.mark.parametrize("algorithm", ("cubic", "reno"))
@pytest.mark.parametrize("kind", KINDS)
def test_window_and_threshold(hosts: Hosts, kind: str, algorithm: str) -> None:
    sock, peer = hosts.connect(kind)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
    congestion._made[0].give(sock, algorithm, 300, 200, False)
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
    congestion._made[0].give(sock, "cubic", 300, 200, False)
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


def test_ecn_of_a_closed_connection(hosts: Hosts) -> None:
    """With bytes to read still. No congestion control begins in a socket that is closed already."""
    for namespace in (hosts.here, hosts.there):
        with namespace.entered():
            Path("/proc/sys/net/ipv4/tcp_ecn").write_text("1")
    sock, peer = hosts.connect()
    peer.sendall(b"unread")
    peer.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSE_WAIT)
    sock.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSE)
    before = tcp_repair.get_info(sock).options & tcp_repair.HAS_ECN
    _, made = pass_on(hosts, sock)
    assert tcp_repair.get_info(made).options & tcp_repair.HAS_ECN == before != 0
    assert made.recv(10) == b"unread"


def test_accurate_ecn_is_refused(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """As kernels to come negotiate it; TCP_INFO says the same as of classic ECN. This one goes on here."""
    numbers = fields.numbers

    def accurate(socks: Sequence[socket.socket]) -> list[fields.Numbers | None]:
        return [one and one._replace(ecn_flags=1 << 4) for one in numbers(socks)]

    monkeypatch.setattr(fields, "numbers", accurate)
    sock, peer = hosts.connect()
    with hosts.here.entered(), pytest.raises(tcpcp.Unsupported, match="accurate ECN"):
        tcpcp.get(sock)
    peer.sendall(b"x")
    assert sock.recv(10) == b"x"


def read_of(hosts: Hosts, sock: socket.socket, algorithm: str) -> Ici:
    """The ICI of *sock*, which goes on; as if it had that congestion control and marked."""
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.resume(sock)
    return dataclasses.replace(
        ici,
        congestion=dataclasses.replace(ici.congestion, algorithm=algorithm, cwnd=300, ssthresh=200),
        negotiated=dataclasses.replace(ici.negotiated, ecn=True),
    )


def test_the_algorithm_is_the_icis_and_not_what_the_socket_says(hosts: Hosts) -> None:
    """DCTCP without ECN says that it is dctcp-reno, which nobody can choose; nor one that was taken away."""
    sock, _ = hosts.connect()
    ici = read_of(hosts, sock, "cubic")
    gone = congestion.Setter()
    tcp_repair.set_congestion(sock, gone._name)
    gone.close()
    assert tcp_repair.get_congestion(sock) == gone._name
    congestion.restore(sock, ici, same_path=True)
    assert tcp_repair.get_congestion(sock) == "cubic"
    assert tcp_repair.get_info(sock).snd_cwnd == 300


def test_after_a_failure_the_socket_has_not_got_ours(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    ici = read_of(hosts, sock, "no_such_one")
    with pytest.raises(KernelError, match="no_such_one"):
        congestion.restore(sock, ici, same_path=True)
    assert tcp_repair.get_congestion(sock) == "reno"


def wants_ecn(sock: Struct, _: int) -> dict[str, bytes]:
    """A congestion control that, as DCTCP does, looks when it begins whether there is ECN: a window of 7 if not.

    Its programs are as those of `tcpcp.endpoint.congestion`.
    """
    begin = [
        instruction(0x79, 6, 1),
        instruction(0x71, 1, 6, sock.offsets["ecn_flags"]),
        instruction(0x57, 1, value=1),
        instruction(0x55, 1, value=0, offset=2),
        instruction(0xB7, 2, value=7),
        instruction(0x63, 6, 2, sock.offsets["snd_cwnd"]),
    ]
    end = instruction(0xB7, 0, value=2) + instruction(0x95)
    return {"init": b"".join(begin) + end, "ssthresh": end, "undo_cwnd": end, "cong_avoid": end}


def test_an_algorithm_that_needs_ecn_finds_it_on(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    sock, _ = hosts.connect()
    with monkeypatch.context() as patch:
        patch.setattr(congestion, "_programs", wants_ecn)
        needy = congestion.Setter()
    tcp_repair.set_congestion(sock, needy._name)
    assert tcp_repair.get_info(sock).snd_cwnd == 7
    congestion.restore(sock, read_of(hosts, sock, needy._name), same_path=True)
    assert tcp_repair.get_congestion(sock) == needy._name
    assert tcp_repair.get_info(sock).snd_cwnd == 300
    tcp_repair.set_congestion(sock, "reno")
    needy.close()


@pytest.mark.parametrize("ecn", (0, 1))
def test_dctcp(hosts: Hosts, ecn: int) -> None:
    """With ECN, and without, where it calls itself by a name that nobody can choose."""
    if "dctcp" not in AVAILABLE.read_text().split():
        pytest.skip("this kernel has no DCTCP")
    for namespace in (hosts.here, hosts.there):
        with namespace.entered():
            Path("/proc/sys/net/ipv4/tcp_ecn").write_text(str(ecn))
    dctcp = lambda sock: tcp_repair.set_congestion(sock, "dctcp")  # noqa: E731
    sock, peer = hosts.connect(setup=dctcp)
    said = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).strip(b"\0")
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).strip(b"\0") == said
    made.sendall(b"1")
    assert peer.recv(1) == b"1"


@pytest.mark.parametrize("kind", KINDS)
def test_the_peers_timestamp(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    first = tcp_repair.get_timestamp(peer)
    peer.sendall(b"x")
    eventually(lambda: tcp_repair.get_inq(sock) == 1, "arrived")
    last = tcp_repair.get_timestamp(peer)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.resume(sock)
    assert ici.timestamp is not None and ici.timestamp.ts_recent is not None
    # Either clock may be a tick ahead of the other.
    assert (ici.timestamp.ts_recent - first + 1) % 2**32 <= (last - first) % 2**32 + 2


def test_the_peers_timestamp_of_what_came_while_it_was_read(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was past the filter, on another processor, when that came into force."""
    sock, peer = hosts.connect()
    exchanged(peer, sock, 1)
    numbers, seen = fields.numbers, []

    def before_it_comes(socks: Sequence[socket.socket]) -> list[fields.Numbers | None]:
        seen.append(numbers(socks))
        if len(seen) == 1:
            time.sleep(0.01)  # another time of the peer's clock
            peer.sendall(b"x")
            eventually(lambda: tcp_repair.get_inq(sock) == 1, "arrived")
        return seen[-1]

    monkeypatch.setattr(fields, "numbers", before_it_comes)
    with hosts.here.entered():
        (ici,) = reader.read_many([sock])
    assert ici.receive_queue.data == b"x" and ici.timestamp is not None
    assert ici.timestamp.ts_recent == numbers([sock])[0].ts_recent != seen[0][0].ts_recent


@pytest.mark.parametrize("microseconds", (False, True), ids=("ms", "us"))
def test_a_paced_connection_is_ahead_of_its_clock(hosts: Hosts, microseconds: bool) -> None:
    """It acknowledges with the time at which it may send again: from there on the peer takes what it sends."""
    sock, peer = hosts.connect()
    tcp_repair.set_repair(sock, tcp_repair.ON)
    clock = seq.add(tcp_repair.get_timestamp(sock), 2)
    tcp_repair.set_each(sock, [tcp_repair.timestamp(clock & ~1 | microseconds)])
    tcp_repair.set_repair(sock, tcp_repair.OFF_NO_PROBE)
    exchanged(sock, peer, 12)  # the first ten segments are not paced
    sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, 5000)
    exchanged(sock, peer, 1, 2000)
    exchanged(peer, sock, 1, 4000)
    time.sleep(0.06)  # acknowledged
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    assert ici.timestamp is not None and ici.timestamp.microseconds == microseconds
    exchanged(made, peer, 1)
    counters = hosts.counters(hosts.there)
    assert counters["TcpExtPAWSEstab"] == counters["TcpExtPAWSOldAck"] == 0


def test_a_peer_that_has_said_nothing_for_long(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock, of microseconds, has gone on by more than half of its numbers: what it sends is not dropped."""
    numbers = fields.numbers

    def long_ago(socks: Sequence[socket.socket]) -> list[fields.Numbers | None]:
        return [one and one._replace(recent_stamp=one.recent_stamp - 40 * 60) for one in numbers(socks)]

    monkeypatch.setattr(fields, "numbers", long_ago)
    sock, peer = hosts.connect()
    exchanged(peer, sock, 1)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        tcp_repair.set_repair(peer, tcp_repair.ON)
        later = seq.add(tcp_repair.get_timestamp(peer), 40 * 60 * 1_000_000)
        tcp_repair.set_each(peer, [tcp_repair.timestamp(later)])
        tcp_repair.set_repair(peer, tcp_repair.OFF_NO_PROBE)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    exchanged(peer, made, 1)
    exchanged(made, peer, 1)
    assert hosts.counters(hosts.here)["TcpExtPAWSEstab"] == 0


def test_when_the_peers_timestamp_came(hosts: Hosts) -> None:
    before = int(time.monotonic())
    sock, peer = hosts.connect()
    exchanged(peer, sock, 1)
    (found,) = fields.numbers([sock])
    assert found is not None and before <= found.recent_stamp <= time.monotonic()


def exchanged(sender: socket.socket, receiver: socket.socket, times: int, size_bytes: int = 1) -> None:
    receiver.settimeout(3)
    for _ in range(times):
        sender.sendall(bytes(size_bytes))
        assert len(receiver.recv(size_bytes, socket.MSG_WAITALL)) == size_bytes


def test_where_the_kernel_refuses_it_is_done_without(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(congestion, "_made", [])
    monkeypatch.setattr(congestion, "_refused", [OSError()])
    monkeypatch.setattr(fields, "_made", [])
    monkeypatch.setattr(fields, "_refused", [OSError()])
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
    one = congestion.Setter()
    assert one._name in AVAILABLE.read_text()
    one.close()
    assert one._name not in AVAILABLE.read_text()


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_child_keeps_none_of_its_parents(hosts: Hosts) -> None:
    """And the parent's stays registered, though the child has closed what it had of it."""
    sock, _ = hosts.connect()
    ours = congestion._made[0]
    kept = [one.number for one in ours._descriptors]
    assert all(map(is_open, kept))
    assert ended(in_child(lambda: not any(map(is_open, kept)) and not congestion.ready())) == 0
    assert ours._name in AVAILABLE.read_text()
    ours.give(sock, "cubic", 300, 200, False)
    assert tcp_repair.get_info(sock).snd_cwnd == 300


def test_a_child_makes_its_own(hosts: Hosts) -> None:
    """Also when another thread of the parent was about to use the parent's."""
    sock, _ = hosts.connect()

    def check() -> bool:
        assert congestion.prepare()
        congestion._made[0].give(sock, "cubic", 77, 200, False)
        return tcp_repair.get_info(sock).snd_cwnd == 77

    with congestion._lock:  # as the other thread would hold it
        pid = in_child(check)
    assert ended(pid) == 0
    congestion._made[0].give(sock, "cubic", 78, 200, False)
    assert tcp_repair.get_info(sock).snd_cwnd == 78


def test_a_kernel_without_a_member_that_is_needed_refuses() -> None:
    found = bpf.structs(("tcp_sock",))["tcp_sock"]
    with pytest.raises(KernelError, match="no_such_member"):
        assert found.offsets["no_such_member"] is None
