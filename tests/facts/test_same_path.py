"""Starting at speed where the path is the old one; the judge is ss."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kernel_info
import pytest
from netns import Hosts, eventually, ip
from passing import assert_no_reset, comparable, deaf
from space_judges import Stall

from tcpcp.endpoint import (
    builder,
    calls,
    host,
    isolation,
    reader,
    repair_mode,
    restored,
    same_path,
    socket_ends,
)
from tcpcp.errors import Unfed
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Ici

SEGMENT, RTT_US = 1448, 200_000


def faster(ici: Ici, rtt_us: int, cwnd: int) -> Ici:
    return dataclasses.replace(ici, congestion=dataclasses.replace(ici.congestion, srtt_us=rtt_us, cwnd=cwnd))


@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_round_trip_time_and_window(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    peer.sendall(b"waits")
    with hosts.here.entered():
        ici = faster(calls.get(sock), 40_000, 77)
        calls.release(sock)
        with Stall() as stall:  # what is late by that is so for the kernel, too
            made = calls.create(ici, same_path=True)
        info = tcp_repair.get_info(made)
        assert 40_000 <= info.rtt <= 42_000 + stall.us
        assert 200_000 <= kernel_info.rto_us(made) <= 300_000 + 3 * stall.us
        assert info.snd_cwnd in (77, 78)
        version = "-6" if kind == "v6" else "-4"
        assert "initcwnd" not in ip(f"{version} route show table main")
        assert comparable(reader.read_again(made, ici)) == comparable(ici)
        calls.activate(made)
    made.sendall(b"hello")
    assert peer.recv(10) == b"hello"
    assert made.recv(10) == b"waits"
    assert_no_reset(hosts)


@pytest.mark.parametrize("rtt_us", (50, 1131, 1999))
def test_a_round_trip_time_between_two_ticks_is_no_shorter(hosts: Hosts, rtt_us: int) -> None:
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        ici = faster(calls.get(sock), rtt_us, 10)
        calls.release(sock)
        with Stall() as stall:
            made = calls.create(ici, same_path=True)
        assert rtt_us <= tcp_repair.get_info(made).rtt <= 4000 + stall.us
        calls.activate(made)


@pytest.mark.parametrize("sent", (b"", b"1"))
@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_what_would_teach_it_is_lost(hosts: Hosts, kind: str, sent: bytes) -> None:
    """Then nothing is left of the bytes by which it would have been taught: the peer would see them."""
    sock, peer = hosts.connect(kind)
    with deaf(hosts.here):
        if sent:
            sock.sendall(sent)
        with hosts.here.entered():
            ici = calls.get(sock)
            calls.release(sock)
    with hosts.here.entered():
        rule = f"iif lo meta mark {isolation.MARK} drop"
        subprocess.run(
            ["nft", f"table inet losing {{ chain c {{ type filter hook input priority -400; {rule}; }}; }}"],
            check=True,
        )
        made = calls.create(ici, same_path=True)
        assert comparable(reader.read_again(made, ici)) == comparable(ici)
        calls.activate(made)
    made.sendall(b"hello")
    peer.settimeout(10)
    expected = sent + b"hello"
    assert peer.recv(len(expected), socket.MSG_WAITALL) == expected
    assert_no_reset(hosts)


def created_elsewhere(hosts: Hosts, rtt_us: int) -> int:
    """Until it would send for the second time, in us."""
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        made = calls.create(faster(ici, rtt_us, 10))
        found = kernel_info.rto_us(made)
        calls.release(made)
    return found


@pytest.mark.parametrize(("rtt_us", "most_us"), [(1000, 300_000), (200_000, 700_000), (990_000, 3_000_000)])
def test_round_trip_time_on_another_path(hosts: Hosts, rtt_us: int, most_us: int) -> None:
    assert rtt_us + 200_000 <= created_elsewhere(hosts, rtt_us) <= most_us


@pytest.mark.parametrize("rtt_us", (0, 1_000_000, 60_000_000))
def test_a_round_trip_time_of_no_use(hosts: Hosts, rtt_us: int) -> None:
    """Source: net/ipv4/tcp_metrics.c tcp_init_metrics(): TCP_TIMEOUT_FALLBACK where no time is known."""
    assert created_elsewhere(hosts, rtt_us) == 3_000_000


def test_without_timestamps_the_first_retransmission_takes_seconds(hosts: Hosts) -> None:
    with hosts.here.entered():
        Path("/proc/sys/net/ipv4/tcp_timestamps").write_text("0")
    assert created_elsewhere(hosts, 1000) == 3_000_000


def test_round_trip_time_at_another_address(hosts: Hosts) -> None:
    """The socket that is given is bound elsewhere than the ICI says, and there it hears."""
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        ip("addr add 10.9.0.9/24 dev here0")
        bound = socket.socket()
        bound.bind(("10.9.0.9", 0))
        made = calls.create(faster(ici, 40_000, 10), sock=bound)
        assert 40_000 <= tcp_repair.get_info(made).rtt <= 42_000
        calls.release(made)


@pytest.mark.parametrize("same_path", (False, True))
def test_passed_again_at_once_with_bytes_under_way(hosts: Hosts, same_path: bool) -> None:
    """The peer answers one probe in half a second, so the second wake-up draws no acknowledgement."""
    sock, peer = hosts.connect()
    calls.prepare()
    for _ in range(3):
        with deaf(hosts.here):
            sock.sendall(b"1")
            assert peer.recv(1) == b"1"
        with hosts.here.entered():
            ici = calls.get(sock)
            assert ici.send_queue.sent == b"1"
            calls.release(sock)
            sock = calls.create(ici, same_path=same_path)
            calls.activate(sock)
        eventually(lambda sock=sock: not tcp_repair.get_outq(sock), "acknowledged", 0.8)
    assert hosts.counters(hosts.there)["TcpExtTCPACKSkippedSeq"], "all wake-ups were answered"
    assert_no_reset(hosts)


@contextlib.contextmanager
def first_of_eight_is_lost(hosts: Hosts, sock: socket.socket) -> Iterator[int]:
    """*sock* has sent eight segments; the first does not arrive, and no answer to the others; afterwards all does.

    :return: how many bytes that are.
    """
    tcp_repair.set_repair(sock, tcp_repair.ON)
    tcp_repair.select_queue(sock, tcp_repair.SEND_QUEUE)
    lost = tcp_repair.get_queue_seq(sock)
    tcp_repair.set_repair(sock, tcp_repair.OFF_NO_PROBE)
    chain = f"chain c {{ type filter hook input priority -400; tcp sequence {lost} drop; }}"
    with hosts.there.entered():
        subprocess.run(["nft", f"table inet losing {{ {chain}; }}"], check=True)
    with deaf(hosts.here):
        for _ in range(8):
            sock.sendall(b"q" * SEGMENT)
        yield 8 * SEGMENT
        with hosts.there.entered():
            subprocess.run(["nft", "delete table inet losing"], check=True)


@pytest.mark.parametrize("algorithm", ("cubic", "reno"))
@pytest.mark.parametrize("same_path", (False, True))
def test_what_was_lost_is_sent_again_at_the_first_sack(hosts: Hosts, same_path: bool, algorithm: str) -> None:
    """The peer tells of what it has; that counts, though it was told sooner than a round trip takes."""
    sock, peer = hosts.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
    calls.prepare()
    with first_of_eight_is_lost(hosts, sock) as number, hosts.here.entered():
        ici = faster(calls.get(sock), RTT_US, 10)
        assert len(ici.send_queue.sent) == number
        calls.release(sock)
    with hosts.here.entered():
        sock = calls.create(ici, same_path=same_path)
        info = tcp_repair.get_info(sock)
        assert RTT_US <= info.rtt <= RTT_US * 1.1
        assert tcp_repair.get_congestion(sock) == algorithm
        assert tcp_repair.get_pacing(sock)[1] >= RTT_US / 8, "what is overtaken would be taken for lost"
        time.sleep(RTT_US / 1e6 / 4)  # longer than the shortest time that it was taught
        begun = time.monotonic()
        calls.activate(sock)
    peer.settimeout(3)
    assert len(peer.recv(number, socket.MSG_WAITALL)) == number
    assert time.monotonic() - begun < RTT_US / 1e6, "a timer has sent it"
    assert_no_reset(hosts)


@pytest.mark.parametrize("why", ("bbr", "locked"))
def test_no_short_time_where_one_would_send_by_it(hosts: Hosts, why: str) -> None:
    sock, _peer = hosts.connect()
    if why == "bbr":
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        except FileNotFoundError:
            pytest.skip("this kernel has no BBR")
    with hosts.here.entered():
        if why == "locked":
            ip("route add 10.9.0.2/32 dev here0 congctl lock cubic")
        with first_of_eight_is_lost(hosts, sock):
            ici = faster(calls.get(sock), RTT_US, 10)
            calls.release(sock)
        sock = calls.create(ici)
        assert RTT_US <= tcp_repair.get_info(sock).rtt <= RTT_US + 2000
        assert RTT_US <= tcp_repair.get_pacing(sock)[1] <= RTT_US + 2000
        assert tcp_repair.get_congestion(sock) == {"bbr": "bbr", "locked": "cubic"}[why]
        assert comparable(reader.read_again(sock, ici)).send_queue == ici.send_queue
        calls.release(sock)


def test_a_socket_of_criu_is_taught_by_a_byte_more(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = faster(calls.get(sock), 30_000, 10)
        calls.release(sock)
        longer = dataclasses.replace(ici, send_queue=dataclasses.replace(ici.send_queue, sent=b"\0"))
        limits = host.limits()
        made = builder.begin(longer, limits=limits)
        builder.complete(made, longer, limits=limits)
        restored.finish_restored(made, ici, same_path=True)
        assert 30_000 <= tcp_repair.get_info(made).rtt <= 32_000
        assert comparable(reader.read_again(made, ici)) == comparable(ici)
        repair_mode.leave_repair(made, tcp_repair.OFF)
        made.sendall(b"1")
    peer.settimeout(3)
    assert peer.recv(5) == b"1"


def test_a_socket_of_criu_stays_on_its_interface(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where what is fed to it for the sake of speed does not arrive."""
    sock, _peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"here0\0")

    def unfed(*_: object) -> None:
        raise Unfed("it did not arrive")

    with hosts.here.entered():
        ici = calls.get(sock)
        monkeypatch.setattr(restored, "_feed_restored", unfed)
        with pytest.raises(Unfed):
            restored.finish_restored(sock, ici)
        assert socket_ends.device(sock) == ici.device == "here0"
        calls.release(sock)


def test_a_route_that_exists_is_left_alone(hosts: Hosts) -> None:
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        ip("route add 10.9.0.2/32 dev here0 initcwnd 20")
        before = ip("-4 route show table main")
        ici = faster(calls.get(sock), 1000, 50)
        with same_path.InitialWindows([ici]):
            assert ip("-4 route show table main") == before
        assert ip("-4 route show table main") == before
        calls.release(sock)


def test_a_burst_has_a_limit(hosts: Hosts) -> None:
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.resume(sock)
    assert same_path.initial_windows([faster(ici, 1, 10**6)]) == {socket.inet_aton("10.9.0.2"): 1000}
    assert same_path.initial_windows([faster(ici, 1, 30), faster(ici, 1, 10)]) == {}
