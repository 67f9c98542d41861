"""A segment of the peer that another has overtaken acknowledges less than has been acknowledged since."""

from __future__ import annotations

import socket

from netns import Hosts, eventually
from passing import state_of, wait_state

import tcpcp
from tcpcp.endpoint import raw_segment
from tcpcp.kernel import tcp_repair
from tcpcp.record import seq
from tcpcp.record.ici import Ici, State

BYTES = 100


def exchanged(sock: socket.socket, peer: socket.socket) -> None:
    """*peer* has acknowledged some bytes, and *sock* knows."""
    sock.sendall(b"x" * BYTES)
    assert len(peer.recv(BYTES, socket.MSG_WAITALL)) == BYTES
    eventually(lambda: not tcp_repair.get_outq(sock), "acknowledged")


def refused(hosts: Hosts) -> int:
    """How many segments were answered for what they acknowledge, or not for the limit of answers alone."""
    counters = hosts.counters(hosts.here)
    return counters["TcpExtTCPChallengeACK"] + counters["TcpExtTCPACKSkippedChallenge"]


def comes_late(hosts: Hosts, ici: Ici, acknowledged: int) -> None:
    """The peer's FIN, which has been on its way since only *acknowledged* had come."""
    assert ici.timestamp is not None
    late = raw_segment.build(
        ici.peer,
        ici.local,
        seq=ici.rcv_nxt,
        ack=acknowledged,
        flags=raw_segment.ACK | raw_segment.FIN,
        window=100,
        # Later than what the peer has said meanwhile, which had nothing to overtake.
        timestamp=(seq.add(ici.timestamp.echo, 10_000), ici.timestamp.value),
    )
    with hosts.there.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(late, (hosts.here_ip[4], 0))


def test_it_is_taken_as_far_back_as_was_counted_here(hosts: Hosts) -> None:
    """Source: net/ipv4/tcp_input.c tcp_ack(), ``bytes_acked``."""
    sock, peer = hosts.connect()
    exchanged(sock, peer)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        sock = tcpcp.create(ici)
        tcpcp.activate(sock)
    before = refused(hosts)
    comes_late(hosts, ici, seq.add(ici.snd_una, -BYTES))
    eventually(lambda: refused(hosts) > before, "it has come")
    assert state_of(sock) is State.ESTABLISHED
    exchanged(sock, peer)
    comes_late(hosts, ici, ici.snd_una)
    eventually(lambda: state_of(sock) is not State.ESTABLISHED, "it is taken")


def test_it_is_taken_where_the_connection_stays(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    exchanged(sock, peer)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.resume(sock)
    comes_late(hosts, ici, seq.add(ici.snd_una, -BYTES))
    wait_state(sock, State.CLOSE_WAIT)
