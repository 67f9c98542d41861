"""What `tcpcp` relies on in the kernel's TCP, one test each; a new kernel tells us here first."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

import pytest
from netns import Hosts, eventually
from passing import deaf, state_of

from tcpcp.endpoint import (
    calls,
    connecting,
    inspection,
    raw_segment,
    reader,
    repair_mode,
    restored,
)
from tcpcp.endpoint.isolation import Isolation
from tcpcp.errors import KernelError, Unsupported
from tcpcp.kernel import tcp_repair
from tcpcp.kernel.tcp_repair import NO_QUEUE, OFF, OFF_NO_PROBE, ON, RECV_QUEUE, SEND_QUEUE
from tcpcp.record import seq
from tcpcp.record.checksum import checksum
from tcpcp.record.ici import Endpoint, State


def urgent(sock: socket.socket) -> list[socket.socket]:
    """What a look at several sockets says of one: whether urgent data has arrived and is not yet read."""
    return inspection._urgent([sock], inspection._events([sock]))


def in_repair(sock: socket.socket) -> socket.socket:
    tcp_repair.set_repair(sock, ON)
    return sock


def test_repair_does_not_isolate(hosts: Hosts) -> None:
    """A segment that arrives in repair mode moves rcv_nxt and is acknowledged.

    Source: net/ipv4/tcp_input.c tcp_rcv_established() does not look at tp->repair.
    """
    sock, peer = hosts.connect()
    in_repair(sock)
    tcp_repair.select_queue(sock, RECV_QUEUE)
    before = tcp_repair.get_queue_seq(sock)
    peer.sendall(b"12345")
    eventually(lambda: tcp_repair.get_queue_seq(sock) == seq.add(before, 5), "rcv_nxt moves")
    eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged")


def test_close_is_silent_and_the_next_segment_is_reset(hosts: Hosts) -> None:
    """Source: net/ipv4/tcp.c __tcp_close() "if (unlikely(tcp_sk(sk)->repair))"; tcp_v4_send_reset()."""
    sock, peer = hosts.connect()
    sent = hosts.counters(hosts.here)["TcpOutSegs"]
    in_repair(sock).close()
    assert hosts.counters(hosts.here)["TcpOutSegs"] == sent
    peer.sendall(b"late")
    eventually(lambda: hosts.counters(hosts.there)["TcpEstabResets"] == 1, "reset")


def test_queue_seq_of_the_send_queue_is_write_seq(hosts: Hosts) -> None:
    """Source: net/ipv4/tcp.c do_tcp_getsockopt() TCP_QUEUE_SEQ; tcp_ioctl()."""
    sock, _peer = hosts.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    in_repair(sock)
    tcp_repair.select_queue(sock, SEND_QUEUE)
    before = tcp_repair.get_queue_seq(sock)
    tcp_repair.set_repair(sock, OFF_NO_PROBE)
    sock.sendall(b"unsent")
    in_repair(sock)
    tcp_repair.select_queue(sock, SEND_QUEUE)
    assert tcp_repair.get_queue_seq(sock) == seq.add(before, 6)
    assert tcp_repair.get_outq(sock) == tcp_repair.get_outq_nsd(sock) == 6


def test_queue_seq_cannot_be_set_once_connected(hosts: Hosts) -> None:
    """Source: net/ipv4/tcp.c do_tcp_setsockopt() TCP_QUEUE_SEQ: -EPERM unless TCP_CLOSE."""
    sock, _peer = hosts.connect()
    in_repair(sock)
    tcp_repair.select_queue(sock, SEND_QUEUE)
    with pytest.raises(KernelError) as caught:
        tcp_repair.set_each(sock, [tcp_repair.queue_seq(1)])
    assert caught.value.errno == errno.EPERM
    assert caught.value.call == "setsockopt(TCP_QUEUE_SEQ)"


def test_leaving_clears_so_reuseaddr(hosts: Hosts) -> None:
    """Source: net/ipv4/tcp.c TCP_REPAIR_OFF: sk->sk_reuse = SK_NO_REUSE."""
    sock, _peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp_repair.set_repair(in_repair(sock), OFF_NO_PROBE)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0


@pytest.mark.parametrize(("mode", "segments"), ((OFF, 1), (OFF_NO_PROBE, 0)))
def test_window_probe(hosts: Hosts, mode: int, segments: int) -> None:
    """Source: net/ipv4/tcp.c TCP_REPAIR; tcp_output.c tcp_send_window_probe()."""
    sock, _peer = hosts.connect()
    before = hosts.counters(hosts.here)["TcpOutSegs"]
    tcp_repair.set_repair(in_repair(sock), mode)
    assert hosts.counters(hosts.here)["TcpOutSegs"] == before + segments


def test_a_drop_on_output_does_not_count_as_sent(hosts: Hosts) -> None:
    """The filter's drop answers EPERM, so what TCP could not send stays unsent.

    Source: net/netfilter/core.c nf_hook_slow(); net/ipv4/tcp_output.c tcp_write_xmit() "break".
    """
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        isolation = Isolation("fact")
        isolation.hold([calls.flow_of(sock)])
        sock.sendall(b"x" * 5000)
        assert tcp_repair.get_outq_nsd(sock) == tcp_repair.get_outq(sock) == 5000
        isolation.release()
    eventually(lambda: not tcp_repair.get_outq(sock), "sent later")


def test_send_window_of_0_keeps_unsent_data(hosts: Hosts) -> None:
    """Rebuilding writes the unsent part outside of repair mode; the window is what keeps it here.

    Source: net/ipv4/tcp_output.c tcp_write_xmit(), tcp_snd_wnd_test(); tcp_connect_init() leaves snd_wnd 0.
    """
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        calls.prepare()  # the first get in a process takes long, and the kernel uncorks after 200 ms
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        sock.sendall(b"x" * 1000)
        ici = calls.get(sock)
        calls.release(sock)
        before = hosts.counters(hosts.here)["TcpOutSegs"]
        made = calls.create(ici, isolate=False)
        assert hosts.counters(hosts.here)["TcpOutSegs"] == before
        assert tcp_repair.get_outq_nsd(made) == 1000
        repair_mode.discard(made)


def test_window_takes_twenty_bytes(hosts: Hosts) -> None:
    """Source: net/ipv4/tcp.c tcp_repair_set_window(); do_tcp_getsockopt() TCP_REPAIR_WINDOW."""
    sock, _peer = hosts.connect()
    in_repair(sock)
    for size in (16, 24):
        with pytest.raises(OSError, match="Invalid argument"):
            sock.getsockopt(socket.IPPROTO_TCP, tcp_repair.TCP_REPAIR_WINDOW, size)
    assert tcp_repair.get_window(sock).rcv_wnd > 0


def test_mss_clamp_only_in_repair_mode(hosts: Hosts) -> None:
    """Source: net/ipv4/tcp.c do_tcp_getsockopt() TCP_MAXSEG."""
    sock, _peer = hosts.connect()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 1448
    assert tcp_repair.get_mss_clamp(in_repair(sock)) == 1460


@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_segment_size_after_repair_options(hosts: Hosts, kind: str) -> None:
    """connect() computes with 536; empty IP options, or empty 2292 packet options, recompute.

    Source: net/ipv4/tcp_output.c tcp_connect_init(), tcp_sync_mss(); ip_sockglue.c IP_OPTIONS;
    ipv6_sockglue.c ipv6_update_options().
    """
    sock, _peer = hosts.connect(kind)
    before = tcp_repair.get_info(sock).snd_mss
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        made = socket.socket(sock.family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        in_repair(made)
        made.bind(connecting._sockaddr(ici, ici.local))
        made.connect(connecting._sockaddr(ici, ici.peer))
        tcp_repair.set_each(made, [tcp_repair.negotiated(connecting._agreed(ici.negotiated))])
        assert tcp_repair.get_info(made).snd_mss == (1208 if kind == "v6" else 524)
        restored.finish_restored(made, ici, may_feed=False)  # it has no sequence numbers
        assert tcp_repair.get_info(made).snd_mss == before
        repair_mode.discard(made)


def test_user_mss_before_connect_is_what_connect_computes_with(hosts: Hosts) -> None:
    """And it can be taken back afterwards. Source: tcp_connect_init() user_mss; tcp_sock_set_maxseg()."""
    sock, _peer = hosts.connect("v6")
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        made = calls.create(ici)
        assert tcp_repair.get_info(made).snd_mss == 1428
        assert tcp_repair.get_mss_clamp(made) == 1440
        calls.release(made)


def feed_ack(made: socket.socket, local: Endpoint, peer: Endpoint, number: int, ack: int) -> None:
    packet = raw_segment.build(peer, local, seq=number, ack=ack, flags=raw_segment.ACK, window=64)
    raw_segment.feed(packet, local)


def test_a_segment_acknowledged_in_part_is_peeked_whole(hosts: Hosts) -> None:
    """The kernel trims only segments of several packets; we cut off what is acknowledged.

    Source: net/ipv4/tcp_input.c tcp_clean_rtx_queue(), tcp_tso_acked(); tcp.c tcp_peek_sndq().
    """
    sock, _peer = hosts.connect()
    content = bytes(range(250)) * 4
    with deaf(hosts.there), hosts.here.entered():
        sock.sendall(content)
        flow = calls.flow_of(sock)
        isolation = Isolation("fact")
        isolation.hold([flow])
        ici = reader.read(sock)
        assert ici.send_queue.sent == content
        tcp_repair.select_queue(sock, NO_QUEUE)
        feed_ack(sock, flow.local, flow.peer, ici.rcv_nxt, seq.add(ici.snd_una, 300))
        eventually(lambda: tcp_repair.get_outq(sock) == 700, "acknowledged in part")
        tcp_repair.select_queue(sock, SEND_QUEUE)
        assert sock.recv(5000, socket.MSG_PEEK) == content
        again = reader.read_again(sock, ici)
        assert again.send_queue.sent == content[300:]
        assert again.snd_nxt == ici.snd_nxt
        isolation.release()


def test_an_urgent_byte_that_was_read_and_is_the_last(hosts: Hosts) -> None:
    """It stays in the queue until the program reads on, though there is nothing: so it is told to."""
    sock, peer = hosts.connect()
    peer.send(b"!", socket.MSG_OOB)
    eventually(lambda: urgent(sock), "the urgent byte")
    assert sock.recv(1, socket.MSG_OOB) == b"!"
    with hosts.here.entered():
        with pytest.raises(Unsupported, match="has been read already"):
            calls.get(sock)
        with pytest.raises(BlockingIOError):
            sock.recv(1, socket.MSG_DONTWAIT)
        ici = calls.get(sock)
        calls.release(sock)
        with calls.create(ici) as made:
            calls.activate(made)
            peer.sendall(b"goes on")
            assert made.recv(10) == b"goes on"


@pytest.mark.parametrize("consume", (False, True))
def test_urgent_data_cuts_the_peek(hosts: Hosts, consume: bool) -> None:
    """Without SO_OOBINLINE neither SIOCINQ nor a peek goes beyond the urgent mark: we refuse.

    Source: net/ipv4/tcp.c tcp_inq() (include/net/tcp.h), tcp_recvmsg_locked() "urg_data".
    """
    sock, peer = hosts.connect()
    peer.sendall(b"before")
    peer.send(b"!", socket.MSG_OOB)
    peer.sendall(b"behind")
    eventually(lambda: tcp_repair.get_inq(sock) == 6, "only to the mark")
    eventually(lambda: urgent(sock), "the urgent byte")
    if consume:
        assert sock.recv(1, socket.MSG_OOB) == b"!"
        assert not urgent(sock)
    with hosts.here.entered():
        with pytest.raises(Unsupported, match="urgent"):
            calls.get(sock)
        assert not tcp_repair.get_repair(sock)
    assert sock.recv(100) == b"before"


def test_mptcp_refuses_repair(hosts: Hosts) -> None:
    """Source: net/mptcp/sockopt.c mptcp_supported_sockopt()."""
    with hosts.here.entered():
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, tcp_repair.IPPROTO_MPTCP)
        except OSError as exc:
            pytest.skip(f"kernel without MPTCP: {exc}")
    with pytest.raises(KernelError):
        tcp_repair.set_repair(sock, ON)
    with pytest.raises(Unsupported, match="Multipath"):
        inspection.inspect(sock)


def test_timestamp_clock(hosts: Hosts) -> None:
    """Bit 0 is the unit, 0 for ms; what is set goes on running and does not go back.

    Source: net/ipv4/tcp.c TCP_TIMESTAMP; commit 614e8316aa4c "tcp: add support for usec resolution".
    """
    sock, _peer = hosts.connect()
    in_repair(sock)
    assert tcp_repair.get_timestamp(sock) & 1 == 0
    for value in (0xFFFFFF00, 12346):
        tcp_repair.set_each(sock, [tcp_repair.timestamp(value)])
        assert 0 <= seq.diff(tcp_repair.get_timestamp(sock), value) < 1000
    tcp_repair.set_each(sock, [tcp_repair.timestamp(1_000_001)])
    assert tcp_repair.get_timestamp(sock) & 1 == 1
    assert 0 <= seq.diff(tcp_repair.get_timestamp(sock), 1_000_001) < 1_000_000


def test_read_gives_a_timestamp_that_was_not_used(hosts: Hosts) -> None:
    sock, _peer = hosts.connect()
    in_repair(sock)
    before = tcp_repair.get_timestamp(sock)
    stamp = reader._timestamp(sock)
    assert stamp.value % 2 == 0
    assert seq.diff(stamp.value, before | 1) > 0


def test_info_is_understood_when_short_or_long(hosts: Hosts) -> None:
    """Source: net/ipv4/tcp.c do_tcp_getsockopt() TCP_INFO: min(len, sizeof(info))."""
    sock, _peer = hosts.connect()
    info = tcp_repair.get_info(sock)
    assert (info.state, info.advmss, info.snd_mss) == (1, 1448, 1448)
    assert info.snd_wscale == info.rcv_wscale == sock.getsockopt(6, 11, 8)[6] & 15
    assert state_of(sock) is State.ESTABLISHED


def test_fed_fin_arrives(hosts: Hosts) -> None:
    """A raw socket's packet from the peer's address to a local one comes in by the loopback interface.

    Source: net/ipv4/raw.c raw_send_hdrinc(); drivers/net/loopback.c keeps the route, so no martian check.
    """
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        flow = calls.flow_of(sock)
        tcp_repair.select_queue(in_repair(sock), RECV_QUEUE)
        number = tcp_repair.get_queue_seq(sock)
        tcp_repair.select_queue(sock, SEND_QUEUE)
        ack = tcp_repair.get_queue_seq(sock)
        flags = raw_segment.FIN | raw_segment.ACK
        packet = raw_segment.build(flow.peer, flow.local, seq=number, ack=ack, flags=flags, window=1)
        raw_segment.feed(packet, flow.local)
        eventually(lambda: state_of(sock) is State.CLOSE_WAIT, "CLOSE_WAIT")


def test_built_segments_have_right_checksums() -> None:
    """RFC 1071: a sum over data that includes its checksum is 0xffff, so its complement 0."""
    for version, peer in ((4, "10.9.0.2"), (6, "fd09::2")):
        ends = Endpoint(ipaddress.ip_address(peer), 443), Endpoint(ipaddress.ip_address(peer) + 5, 50001)
        packet = raw_segment.build(*ends, seq=2**32 - 1, ack=7, flags=0x11, window=9, timestamp=(5, 6))
        header = 20 if version == 4 else 40
        segment = packet[header:]
        pseudo = ends[0].ip.packed + ends[1].ip.packed + struct.pack("!II", len(segment), 6)
        assert checksum(pseudo + segment) == 0
        if version == 4:
            assert checksum(packet[:20]) == 0
