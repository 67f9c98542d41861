"""Lets a connection run so that its peer hears of it at once: the wake-up of the paper, in every state.

In ESTABLISHED the kernel sends a window probe when repair mode is switched off. In the other states it does
not (net/ipv4/tcp.c tcp_repair_off_probe -> tcp_send_window_probe()), and a peer that lost what it sent in the
gap would find out by its own timer, up to seconds later. There a segment that repeats an old sequence number
is fed to the socket, which answers such a one with an acknowledgement (RFC 9293 section 3.10.7.4,
net/ipv4/tcp_input.c tcp_validate_incoming()).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from tcpcp import inspection, raw_segment, seq, tcp_repair
from tcpcp.errors import TcpcpError
from tcpcp.ici import Endpoint, State

#: States with a peer that may be waiting for something.
_SILENT = frozenset(
    {State.FIN_WAIT1, State.FIN_WAIT2, State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING}
)  # fmt: skip


def prepare(socks: Iterable[socket.socket]) -> None:
    """Open what :func:`wake` needs for *socks*, which are isolated still; within :func:`raw_segment.keeping`.

    :raises KernelError: there is no descriptor left; nothing has changed.
    """
    families: set[int] = set()
    for sock in socks:
        if tcp_repair.get_state(sock) in _SILENT:
            families.add(_family(inspection.local_end(sock)))
    for family in families:
        raw_segment.namespace(family)


def _family(local: Endpoint) -> int:
    return socket.AF_INET6 if local.ip.version == 6 else socket.AF_INET


def old_segment(sock: socket.socket) -> bytes:
    """What :func:`wake` feeds to *sock*, which is in repair mode; b"" where nothing is needed, or would arrive.

    A socket bound to an interface hears nothing that is fed to it: that comes by the loopback interface, and
    what is not heard would draw a reset.
    """
    if tcp_repair.get_state(sock) not in _SILENT:
        return b""
    local, peer, _ = inspection.ends(sock)
    if raw_segment.namespace(_family(local)) != tcp_repair.get_namespace(sock):
        return b""
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
