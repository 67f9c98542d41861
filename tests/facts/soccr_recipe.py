"""A connection rebuilt as CRIU does it, call for call: for what the library completes and has not built.

Source: soccr/soccr.c libsoccr_set_sk_data_noq(), libsoccr_restore(); criu/sockets.c restore_prepare_socket().
"""

from __future__ import annotations

import socket

from criu_stream import TcpStream, parse

from tcpcp.endpoint import connecting
from tcpcp.kernel import tcp_repair
from tcpcp.record import seq
from tcpcp.record.ici import Ici

_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _LARGEST_BUFFER = 32, 33, 2**30 - 1


def rebuild(ici: Ici, image: bytes) -> socket.socket:
    """A socket as *image*, the tcp-stream image of *ici*, which is established, tells CRIU to make it.

    It is isolated, and in repair mode; for what is unsent it is out of it for a moment, with a probe.
    """
    stream = parse(image, ici.state)
    sock = socket.socket(ici.family)
    for name in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        sock.setsockopt(socket.SOL_SOCKET, name, _LARGEST_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp_repair.set_repair(sock, tcp_repair.ON)
    sock.bind(connecting._sockaddr(ici, ici.local))
    unread, sent = stream.receive_queue.data, stream.send_queue.sent
    for queue, first in (
        (tcp_repair.RECV_QUEUE, seq.add(stream.rcv_nxt, -len(unread))),
        (tcp_repair.SEND_QUEUE, seq.add(stream.snd_nxt, -len(sent))),
    ):
        tcp_repair.set_each(sock, [tcp_repair.QUEUES[queue], tcp_repair.queue_seq(first)])
    sock.connect(connecting._sockaddr(ici, ici.peer))
    _agree(sock, stream)
    _fill(sock, stream)
    if stream.window:
        tcp_repair.set_window(sock, stream.window)
    return sock


def _agree(sock: socket.socket, stream: TcpStream) -> None:
    agreed = stream.negotiated
    options = [(tcp_repair.OPT_WINDOW, agreed.snd_wscale | agreed.rcv_wscale << 16)]
    if agreed.sack:
        options.insert(0, (tcp_repair.OPT_SACK, 0))
    if agreed.timestamps:
        options.append((tcp_repair.OPT_TIMESTAMP, 0))
    options.append((tcp_repair.OPT_MSS, agreed.mss_clamp))
    tcp_repair.set_each(sock, [tcp_repair.negotiated(options)])
    if stream.timestamp is not None:
        tcp_repair.set_each(sock, [tcp_repair.timestamp(stream.timestamp)])


def _fill(sock: socket.socket, stream: TcpStream) -> None:
    for queue, data in (
        (tcp_repair.RECV_QUEUE, stream.receive_queue.data),
        (tcp_repair.SEND_QUEUE, stream.send_queue.sent),
    ):
        if data:
            tcp_repair.select_queue(sock, queue)
            sock.sendall(data)
    if stream.send_queue.unsent:
        tcp_repair.set_repair(sock, tcp_repair.OFF)
        sock.sendall(stream.send_queue.unsent)
        tcp_repair.set_repair(sock, tcp_repair.ON)
