"""From ESTABLISHED into the state of an ICI, in the order in which the connection got there."""

from __future__ import annotations

import socket

from tcpcp.endpoint import feeding, filling, raw_segment, repair_mode
from tcpcp.kernel import tcp_repair
from tcpcp.kernel.tcp_repair import TCP
from tcpcp.record import seq
from tcpcp.record.ici import FIN_IN, Ici, State, Window

_MORE_THAN_A_SEGMENT = 2**17


def close_halves(sock: socket.socket, ici: Ici) -> None:
    """Bring the connection from ESTABLISHED into its state, in the order in which it got there."""
    state = ici.state
    if state is State.ESTABLISHED:
        return
    fin_sent_first = state is State.FIN_WAIT2 or (ici.send_queue.fin_sent and state is State.CLOSING)
    if fin_sent_first or (state is State.FIN_WAIT1 and ici.send_queue.fin_sent):
        filling.shut_down_as_sent(sock)
    if state is State.FIN_WAIT2:
        feeding.feed(sock, ici, raw_segment.ACK, ici.rcv_nxt, ici.snd_nxt, State.FIN_WAIT2)
    if state in FIN_IN:
        _receive_fin(sock, ici)
    if state is State.LAST_ACK:
        _shut_down_last(sock, ici)
    if state is State.CLOSE:
        filling.shut_down_as_sent(sock)
        feeding.feed(sock, ici, raw_segment.ACK, ici.rcv_nxt, ici.snd_nxt, State.CLOSE)


def _shut_down_last(sock: socket.socket, ici: Ici) -> None:
    if ici.send_queue.fin_sent:
        filling.shut_down_as_sent(sock)
        return
    with repair_mode.outside_repair_mode(sock, ici):
        filling.shut_down(sock)


def _receive_fin(sock: socket.socket, ici: Ici) -> None:
    expected = State.CLOSING if ici.state is State.CLOSING else State.CLOSE_WAIT
    flags, number = raw_segment.FIN | raw_segment.ACK, seq.add(ici.rcv_nxt, -1)
    feeding.feed(sock, ici, flags, number, feeding.first_to_send(ici), expected)
    if expected is State.CLOSE_WAIT:
        _acknowledge(sock, ici)


def _acknowledge(sock: socket.socket, ici: Ici) -> None:
    """Acknowledge what was fed now, which the isolation drops; in 40 ms the kernel would by itself.

    It would take for told what it says of the window then. It acknowledges at once what is more than a segment,
    as all is since a number that is far enough back (__tcp_cleanup_rbuf()).
    """
    back = Window(seq.add(ici.rcv_nxt, -1), 0, 0, 0, seq.add(ici.rcv_nxt, -_MORE_THAN_A_SEGMENT))
    at_once = 1 if ici.options.get("TCP_QUICKACK", 1) else 2  # an even number leaves the option 0
    tcp_repair.set_each(sock, [tcp_repair.window_(back), (TCP, socket.TCP_QUICKACK, at_once, "TCP_QUICKACK")])
