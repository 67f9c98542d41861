"""What a connection that CRIU has rebuilt knows of its path, with bytes under way; the judge is the kernel."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
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
from tcpcp.errors import Unfed
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


def under_way(hosts: Hosts, kind: str, sent: bytes, unsent: bytes) -> tuple[socket.socket, Ici]:
    """Its peer, and what was got of a connection with these bytes under way, and not sent."""
    sock, peer = hosts.connect(kind)
    with deaf(hosts.here):
        if sent:
            sock.sendall(sent)
        with hosts.here.entered():
            ici = calls.get(sock)
            calls.release(sock)
    assert ici.send_queue.sent == sent
    queue = dataclasses.replace(ici.send_queue, unsent=unsent)
    return peer, faster(dataclasses.replace(ici, send_queue=queue), 40_000, 10)


def goes_on_as_it_was(
    hosts: Hosts, filter_: isolation.Isolation, made: socket.socket, peer: socket.socket, ici: Ici
) -> None:
    """Nothing of what was put in front is left, nor has the peer seen any of it."""
    assert says_the_same(made, ici)
    again = hosts.counters(hosts.there)["TcpExtTCPDSACKOldSent"]
    go_on(made, filter_)
    made.sendall(b"more")
    expected = ici.send_queue.sent + ici.send_queue.unsent + b"more"
    peer.settimeout(10)
    assert peer.recv(len(expected), socket.MSG_WAITALL) == expected
    eventually(lambda: not tcp_repair.get_outq(made), "acknowledged")
    assert hosts.counters(hosts.there)["TcpExtTCPDSACKOldSent"] == again
    assert_no_reset(hosts)


@pytest.mark.parametrize("unsent", (b"", b"not yet"))
@pytest.mark.parametrize("sent", (b"", b"sent", b"s" * 10_000))
@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_nothing_is_fed(
    hosts: Hosts, filter_: isolation.Isolation, kind: str, sent: bytes, unsent: bytes
) -> None:
    """The bytes in front are taken out: the peer would see probes from before them, and have them sent again."""
    peer, ici = under_way(hosts, kind, sent, unsent)
    with hosts.here.entered():
        filter_.hold([isolation.Flow(ici.local, ici.peer)])
        made = soccr_recipe.rebuild(ici, images.tcp_stream(ici, more=restored.bytes_to_teach(ici)))
        assert tcp_repair.get_outq(made) > len(sent + unsent)
        restored.finish_restored(made, ici, same_path=True, may_feed=False)
        goes_on_as_it_was(hosts, filter_, made, peer, ici)


@pytest.mark.parametrize("arrive", (0, 1))
def test_what_is_fed_is_lost(hosts: Hosts, filter_: isolation.Isolation, arrive: int) -> None:
    """All of it, or all but the first, on a host that drops it, or comes to it too late."""
    peer, ici = under_way(hosts, "v4", b"sent", b"")
    with hosts.here.entered():
        filter_.hold([isolation.Flow(ici.local, ici.peer)])
        made = soccr_recipe.rebuild(ici, images.tcp_stream(ici, more=restored.bytes_to_teach(ici)))
        rule = f"iif lo meta mark {isolation.MARK} numgen inc mod 100 >= {arrive} drop"
        subprocess.run(
            ["nft", f"table inet losing {{ chain c {{ type filter hook input priority -400; {rule}; }}; }}"],
            check=True,
        )
        with pytest.raises(Unfed):
            restored.finish_restored(made, ici, same_path=True)
        restored.finish_restored(made, ici, same_path=True, may_feed=False)
        goes_on_as_it_was(hosts, filter_, made, peer, ici)
