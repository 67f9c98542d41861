"""What a connection that CRIU has rebuilt knows of its path, with bytes under way; the judge is the kernel."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Iterator

import kernel_info
import pytest
import soccr_recipe
from netns import Hosts, eventually
from passing import assert_no_reset, comparable, deaf
from test_same_path import RTT_US, SEGMENT, faster, first_of_eight_is_lost

from tcpcp.criu import images
from tcpcp.endpoint import calls, isolation, reader, repair_mode, restored
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Ici

#: What it begins with (net/tcp.h TCP_TIMEOUT_INIT), or three times that.
TIMER_OF_THE_IGNORANT_US = 1_000_000
NAME = f"taught.{os.getpid()}"


@pytest.fixture
def filter_(hosts: Hosts) -> Iterator[isolation.Isolation]:
    """As the driver's around the connections of a tree, of *here*."""
    held = isolation.Isolation(NAME)
    yield held
    with hosts.here.entered():
        held.release()


def passed_as_by_criu(ici: Ici, filter_: isolation.Isolation) -> socket.socket:
    """Rebuilt and completed; isolated still."""
    filter_.hold([isolation.Flow(ici.local, ici.peer)])
    made = soccr_recipe.rebuild(ici, images.tcp_stream(ici, more=restored.bytes_to_teach(ici)))
    restored.finish_restored(made, ici, same_path=True)
    return made


def says_the_same(made: socket.socket, ici: Ici) -> bool:
    """But for options, of which CRIU sets some itself."""
    again = dataclasses.replace(reader.read_again(made, ici), options=ici.options)
    return comparable(again) == comparable(ici)


def go_on(sock: socket.socket, filter_: isolation.Isolation) -> None:
    filter_.release()
    repair_mode.leave_repair(sock, tcp_repair.OFF)


@pytest.mark.parametrize("unsent", (b"", b"not yet"))
@pytest.mark.parametrize("sent", (b"1", b"s" * SEGMENT, b"s" * 10_000))
@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_with_bytes_under_way(
    hosts: Hosts, filter_: isolation.Isolation, kind: str, sent: bytes, unsent: bytes
) -> None:
    """The timer is that of the round-trip time, as it was: it was that of a connection that knows nothing."""
    sock, peer = hosts.connect(kind)
    with deaf(hosts.here):
        sock.sendall(sent)
        eventually(lambda: tcp_repair.get_outq_nsd(sock) == 0, "sent")
        with hosts.here.entered():
            ici = faster(calls.get(sock), 40_000, 10)
            calls.release(sock)
    queue = dataclasses.replace(ici.send_queue, unsent=ici.send_queue.unsent + unsent)
    ici = dataclasses.replace(ici, send_queue=queue)
    assert ici.send_queue.sent
    with hosts.here.entered():
        made = passed_as_by_criu(ici, filter_)
        assert tcp_repair.get_info(made).rtt >= 40_000
        assert 240_000 <= kernel_info.rto_us(made) < TIMER_OF_THE_IGNORANT_US
        assert says_the_same(made, ici)
        go_on(made, filter_)
        made.sendall(b"more")
    peer.settimeout(3)
    expected = sent + unsent + b"more"
    assert peer.recv(len(expected), socket.MSG_WAITALL) == expected
    assert_no_reset(hosts)


@pytest.mark.parametrize("algorithm", ("cubic", "reno"))
def test_what_was_lost_is_sent_again_at_the_first_sack(
    hosts: Hosts, filter_: isolation.Isolation, algorithm: str
) -> None:
    sock, peer = hosts.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
    with first_of_eight_is_lost(hosts, sock) as number, hosts.here.entered():
        ici = faster(calls.get(sock), RTT_US, 10)
        calls.release(sock)
    with hosts.here.entered():
        made = passed_as_by_criu(ici, filter_)
        assert tcp_repair.get_info(made).rtt >= RTT_US > tcp_repair.get_pacing(made)[1]
        assert tcp_repair.get_congestion(made) == algorithm
        time.sleep(RTT_US / 1e6 / 4)  # longer than the shortest time that it was taught
        go_on(made, filter_)
    peer.settimeout(3)
    assert len(peer.recv(number, socket.MSG_WAITALL)) == number
    assert hosts.counters(hosts.here)["TcpExtTCPTimeouts"] == 0, "a timer has sent it"
    assert_no_reset(hosts)


def test_no_short_time_for_bbr(hosts: Hosts, filter_: isolation.Isolation) -> None:
    sock, _peer = hosts.connect()
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
    except FileNotFoundError:
        pytest.skip("this kernel has no BBR")
    with hosts.here.entered():
        with first_of_eight_is_lost(hosts, sock):
            ici = faster(calls.get(sock), RTT_US, 10)
            calls.release(sock)
        made = passed_as_by_criu(ici, filter_)
        assert tcp_repair.get_info(made).rtt >= RTT_US
        assert tcp_repair.get_pacing(made)[1] >= RTT_US
        assert tcp_repair.get_congestion(made) == "bbr"


@pytest.mark.parametrize("more", (0, 536))
def test_nothing_is_fed(hosts: Hosts, filter_: isolation.Isolation, more: int) -> None:
    """The bytes in front, which the peer has had, change nothing for it then."""
    sock, peer = hosts.connect()
    with deaf(hosts.here):
        sock.sendall(b"sent")
        with hosts.here.entered():
            ici = calls.get(sock)
            calls.release(sock)
    with hosts.here.entered():
        filter_.hold([isolation.Flow(ici.local, ici.peer)])
        made = soccr_recipe.rebuild(ici, images.tcp_stream(ici, more=more))
        restored.finish_restored(made, ici, may_feed=False)
        go_on(made, filter_)
        made.sendall(b"more")
    peer.settimeout(10)
    assert peer.recv(8, socket.MSG_WAITALL) == b"sentmore"
    assert_no_reset(hosts)
