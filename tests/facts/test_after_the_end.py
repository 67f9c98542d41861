"""What may happen when a connection is over, to any server: nothing is passed here, and all sockets are plain."""

from __future__ import annotations

import pytest
from netns import Hosts, eventually
from wire import Segment, captured

from tcpcp.endpoint import raw_segment, socket_ends

FIN, RST, ACK = 0x01, 0x04, 0x10


@pytest.mark.parametrize("kind", ["v4", "v6"])
def test_an_acknowledgement_that_its_fin_overtakes_draws_a_reset(hosts: Hosts, kind: str) -> None:
    """The peer, in TIME_WAIT, says its own last one again; the socket that it is for is gone.

    So a capture has a reset of a connection that both sides have closed, and nobody has lost anything. The two may
    leave from two processors: the one by the kernel, in a soft interrupt, the other by the program's call.
    Source: RFC 9293 section 3.10.7.4; net/ipv4/tcp_minisocks.c tcp_timewait_state_process(), TCP_TW_ACK.
    """
    with captured(hosts.there) as wire:
        sock, peer = hosts.connect(kind)
        server, client, _ = socket_ends.ends(sock)
        peer.close()
        assert sock.recv(1) == b""
        sock.close()
        seen: list[Segment] = []
        eventually(lambda: _fin_acknowledged(seen, wire.segments(), server.port), "both sides have closed")
        fin = _fin(seen, server.port)
        late = raw_segment.build(server, client, seq=fin.seq, ack=fin.ack, flags=ACK, window=100)
        with hosts.there.entered():
            raw_segment.feed(late, client)
        drawn = [one for one in wire.wait_from(server.port, 5) if one.flags & RST]
        assert [(one.flags, one.seq) for one in drawn] == [(RST, fin.seq + 1 & 0xFFFFFFFF)]


@pytest.mark.parametrize("kind", ["v4", "v6"])
@pytest.mark.parametrize("again", [False, True], ids=["overtaken", "a FIN that is said again"])
def test_an_acknowledgement_that_comes_after_the_last_draws_a_reset(
    hosts: Hosts, kind: str, again: bool
) -> None:
    """The peer has closed second, so its socket is gone with what acknowledges its FIN.

    What was sent before may come after that, from another processor: by recv(), which tells a larger window. Or its
    FIN was said again, since the answer was late, and that is acknowledged too.
    Source: as above; net/ipv4/tcp.c __tcp_cleanup_rbuf(); net/ipv4/tcp_output.c tcp_send_loss_probe().
    """
    with captured(hosts.there) as wire:
        sock, peer = hosts.connect(kind)
        server, client, _ = socket_ends.ends(sock)
        sock.close()
        assert peer.recv(1) == b""
        peer.close()
        seen: list[Segment] = []
        eventually(lambda: _fin_acknowledged(seen, wire.segments(), client.port), "both sides have closed")
        fin = _fin(seen, client.port)
        if again:
            with hosts.here.entered():
                flags, numbers = FIN | ACK, {"seq": fin.seq, "ack": fin.ack}
                raw_segment.feed(
                    raw_segment.build(client, server, **numbers, flags=flags, window=100), server
                )
        else:
            late = raw_segment.build(server, client, seq=fin.ack, ack=fin.seq, flags=ACK, window=100)
            with hosts.there.entered():
                raw_segment.feed(late, client)
        drawn = [one for one in wire.wait_from(client.port, 5) if one.flags & RST]
        assert [(one.flags, one.seq) for one in drawn] == [(RST, fin.seq + again & 0xFFFFFFFF)]


def _fin(seen: list[Segment], port: int) -> Segment:
    return next(one for one in seen if one.sport == port and one.flags & FIN)


def _fin_acknowledged(seen: list[Segment], more: list[Segment], port: int) -> bool:
    seen += more
    ends = [one.seq + 1 & 0xFFFFFFFF for one in seen if one.sport == port and one.flags & FIN]
    return any(one.dport == port and one.ack in ends for one in seen)
