"""Lets a connection run so that its peer hears of it at once: the wake-up of the paper, in every state.

In ESTABLISHED the kernel sends a window probe when repair mode is switched off, in the other states it does not
(net/ipv4/tcp.c tcp_repair_off_probe -> tcp_send_window_probe()). And the probe makes the peer answer, but tells it
nothing: it lies before the peer's window, so its acknowledgement does not count. A peer whose last octets have not
been acknowledged, since a delayed acknowledgement was due in the gap, would wait for its own timer, and with
Nagle's algorithm keep back what its program has written since. So a segment that repeats an old sequence number is
fed to the socket, which answers such a one with an acknowledgement that counts (RFC 9293 section 3.10.7.4,
net/ipv4/tcp_input.c tcp_validate_incoming(), tcp_send_dupack()).
"""

from __future__ import annotations

import contextlib
import socket

from tcpcp import host, inspection, raw_segment, seq, tcp_repair
from tcpcp.errors import TcpcpError
from tcpcp.ici import State

#: States with a peer that may be waiting for something.
_WAITED_FOR = frozenset(
    {
        State.ESTABLISHED,
        State.FIN_WAIT1,
        State.FIN_WAIT2,
        State.CLOSE_WAIT,
        State.LAST_ACK,
        State.CLOSING,
    }
)  # fmt: skip


def old_segment(sock: socket.socket) -> bytes:
    """What :func:`wake` feeds to *sock*, which is in repair mode; b"" where nothing would arrive.

    A socket bound to an interface hears nothing that is fed to it: that comes by the loopback interface, and
    what is not heard would draw a reset. That nothing seems to be unacknowledged does not count: the timer of a
    delayed acknowledgement may have run out while the connection was isolated.
    """
    if tcp_repair.get_state(sock) not in _WAITED_FOR or host.raw_namespace() != tcp_repair.get_namespace(
        sock
    ):
        return b""
    local, peer, _ = inspection.ends(sock)
    if inspection.device(sock) and not local.ip.is_link_local:
        return b""
    window = tcp_repair.get_window(sock)
    tcp_repair.select_queue(sock, tcp_repair.SEND_QUEUE)
    acknowledged = seq.add(tcp_repair.get_queue_seq(sock), -tcp_repair.get_outq(sock))
    tcp_repair.select_queue(sock, tcp_repair.NO_QUEUE)
    number = seq.add(window.rcv_wup, -1)
    return raw_segment.build(
        peer, local, seq=number, ack=acknowledged, flags=raw_segment.ACK, window=0
    )  # fmt: skip


def wake(sock: socket.socket, segment: bytes) -> None:
    """Have *sock*, which runs, acknowledge; best effort: where that fails the peer finds out later.

    :param segment: from :func:`old_segment`, before it ran.
    """
    if segment:
        local = inspection.local_end(sock)
        with contextlib.suppress(TcpcpError):
            device = inspection.device(sock) if local.ip.is_link_local else ""
            raw_segment.feed(segment, local, device)
