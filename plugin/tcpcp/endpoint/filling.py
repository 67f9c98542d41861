"""Both queues of a connection, filled: what was sent, what was not, what was not read; and our FIN behind it."""

from __future__ import annotations

import errno
import socket

from tcpcp.endpoint import first_namespace, repair_mode, socket_options
from tcpcp.kernel import tcp_repair
from tcpcp.kernel.tcp_repair import RECV_QUEUE, SEND_QUEUE
from tcpcp.record import seq
from tcpcp.record.ici import Ici, State

_NO_LOWAT = 2**32 - 1
#: States in which our FIN was queued before the peer's arrived, or where that came out the same.
_FIN_BEFORE_PEERS = frozenset({State.FIN_WAIT1, State.CLOSING})


def fill_receive_queue(sock: socket.socket, ici: Ici) -> None:
    """What the peer has sent, and the application not read."""
    data = ici.receive_queue.data
    if not data:
        return
    # The kernel counts whole buffers (tcp_try_rmem_schedule()); what the size was is set afterwards.
    needed = first_namespace.queue_bytes(len(data))
    if tcp_repair.get_int(sock, socket.SOL_SOCKET, socket.SO_RCVBUF, "SO_RCVBUF") < needed:
        first_namespace.set_size(sock, "SO_RCVBUF", needed // 2)
    tcp_repair.select_queue(sock, RECV_QUEUE)
    write(sock, data, "send(receive queue)")


def fill_send_queue(sock: socket.socket, ici: Ici) -> None:
    """The sent part in repair mode, so that the kernel counts it as sent; the unsent part outside of it.

    Outside of repair mode the kernel would send: what keeps it from that is the send window, still 0
    (tcp_snd_wnd_test()). No probe either: the timer for that is a second.
    """
    queue = ici.send_queue
    if not (queue.sent or queue.unsent or queue.fin):
        return
    # The kernel counts whole buffers, in which a small segment is alone; what the size was is set afterwards.
    first_namespace.set_size(sock, "SO_SNDBUF", first_namespace.LARGEST_BUFFER)
    _tell_largest_window(sock, ici)
    if queue.sent:
        tcp_repair.select_queue(sock, SEND_QUEUE)
        write(sock, queue.sent, "send(sent part)")
    fin_first = queue.fin and not queue.fin_sent and ici.state in _FIN_BEFORE_PEERS
    if not (queue.unsent or fin_first):
        return
    if queue.unsent:
        # The option, or net.ipv4.tcp_notsent_lowat here, would stop the writing.
        socket_options.apply_all(sock, {"TCP_NOTSENT_LOWAT": _NO_LOWAT})
    with repair_mode.outside_repair_mode(sock, ici):
        write(sock, queue.unsent, "send(unsent part)")
        if fin_first:
            shut_down(sock)


def _tell_largest_window(sock: socket.socket, ici: Ici) -> None:
    """The window stays shut, and the kernel lays out what is written as for a peer that once had a large one.

    Of a buffer it takes half the largest window at most (tcp_bound_to_half_wnd()), and pushes as much
    (forced_push()); where there was none, each segment has a buffer of its own and a PSH.
    """
    window = ici.window
    shut = tcp_repair.window_of(
        seq.add(ici.copied_seq, -1), 0, window.max_window, max(window.rcv_wnd, 1), ici.copied_seq
    )
    tcp_repair.set_each(sock, [shut])


def write(sock: socket.socket, data: bytes, name: str) -> None:
    """Write all of *data*; a write may be short, and a refused size may pass in smaller pieces."""
    view = memoryview(data)
    largest = len(view)
    while view:
        try:
            view = view[sock.send(view[:largest], socket.MSG_DONTWAIT) :]
        except OSError as exc:
            # Receive queue: one buffer for each call, and a large one may not be had in one piece.
            if exc.errno not in (errno.ENOMEM, errno.ENOBUFS) or largest <= 1024:
                raise tcp_repair.failed(name, sock, exc) from exc
            largest = min(largest, len(view)) // 2


def shut_down(sock: socket.socket, how: int = socket.SHUT_WR) -> None:
    """As the application does. :raises KernelError: it is refused."""
    try:
        sock.shutdown(how)
    except OSError as exc:
        raise tcp_repair.failed("shutdown", sock, exc) from exc


def shut_down_as_sent(sock: socket.socket) -> None:
    """Put our FIN behind the send queue; with that queue selected, the kernel counts it as sent."""
    tcp_repair.select_queue(sock, SEND_QUEUE)
    shut_down(sock)
