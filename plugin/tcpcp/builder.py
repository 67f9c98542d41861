"""From an ICI to a socket: rebuilds an endpoint, or completes one that CRIU rebuilt. See `endpoint`."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from tcpcp import congestion_state, inspection, raw_segment, seq, socket_filter, socket_options, tcp_repair
from tcpcp import same_path as same_path_
from tcpcp.errors import Unfed, Unsupported
from tcpcp.ici import FIN_ACKED, FIN_IN, Endpoint, Ici, Negotiated, State, Window
from tcpcp.inspection import READABLE
from tcpcp.reader import enter_repair, reuse_before
from tcpcp.tcp_repair import NO_QUEUE, RECV_QUEUE, SEND_QUEUE, TCP, TCP_MAXSEG

SOL_SOCKET = socket.SOL_SOCKET

#: How long a segment fed to our own stack may take to arrive.
FEED_DEADLINE_S = 2.0


def feeds(ici: Ici) -> bool:
    """Whether :func:`build` needs CAP_NET_RAW: its state is reached only by a segment that arrives."""
    return ici.state in FIN_IN | FIN_ACKED


def build(
    ici: Ici,
    sock: socket.socket | None = None,
    *,
    present: Mapping[str, int] | None = None,
    same_path: bool = False,
    may_feed: bool = True,
) -> socket.socket:
    """What `endpoint.create` does between making the filter and handing out the socket.

    :param present: options that a fresh socket is known to have.
    :param same_path: give the connection the round-trip time, window and threshold it had.
    :param may_feed: there is CAP_NET_RAW, so that the peer's timestamp and the round-trip time can be set.

    On failure a socket made here is closed without a packet; one that was given is left to its owner,
    in repair mode if it had got that far.
    """
    if ici.state not in READABLE:
        raise Unsupported(f"{ici}: an endpoint in state {ici.state.name} cannot be built")
    made = sock is None
    if sock is None:
        sock = socket.socket(socket.AF_INET6 if ici.ipv6_socket else socket.AF_INET, socket.SOCK_STREAM)
    try:
        teach = may_feed and same_path and same_path_.can_teach_rtt(ici)
        _connect(sock, ici, made, present, extra_bytes=int(teach))
        _negotiate(sock, ici)
        with contextlib.suppress(Unfed):  # it works without
            if teach:
                _teach_rtt(sock, ici)
            elif may_feed and ici.timestamp is not None and ici.timestamp.ts_recent is not None:
                _prime_ts_recent(sock, ici, ici.copied_seq, _first_to_send(ici))
        _fill_receive_queue(sock, ici)
        _fill_send_queue(sock, ici)
        _close_halves(sock, ici)
        if ici.socket_filter:
            socket_filter.attach(sock, ici.socket_filter)
        socket_options.set_last(sock, ici.options)
        congestion_state.restore(sock, ici, same_path=same_path)
        # Last: until here the send window is 0, so whatever went wrong in between, nothing was sent.
        tcp_repair.set_window(sock, ici.window)
        if ici.send_queue.fin or ici.send_queue.sent:
            tcp_repair.select_queue(sock, NO_QUEUE)
    except BaseException:
        if made:
            discard(sock)
        raise
    return sock


def _teach_rtt(sock: socket.socket, ici: Ici) -> None:
    tcp_repair.select_queue(sock, SEND_QUEUE)
    _write(sock, b"\0", "send(one byte to time)")
    tcp_repair.select_queue(sock, NO_QUEUE)
    same_path_.teach_rtt(sock, ici, ici.copied_seq, _first_to_send(ici))


def _prime_ts_recent(sock: socket.socket, ici: Ici, number: int, ack: int) -> None:
    """Let the kernel see the peer's timestamp, so that the first segment sent echoes it and not 0.

    :param number: ``rcv_nxt`` now; :param ack: ``snd_una``.
    """
    assert ici.timestamp is not None and ici.timestamp.ts_recent is not None
    stamps = (ici.timestamp.ts_recent, ici.timestamp.value)
    tcp_repair.select_queue(sock, NO_QUEUE)
    tcp_repair.set_window(sock, Window(seq.add(number, -1), 0, 0, max(ici.window.rcv_wnd, 1), number))
    before = tcp_repair.get_segments_in(sock)
    _feed_segment(sock, ici, raw_segment.ACK, number, ack, stamps)
    _wait(lambda: tcp_repair.get_segments_in(sock) != before, ici, same_path_.FEED_DEADLINE_S)


def _first_to_send(ici: Ici) -> int:
    """Where the peer has acknowledged our FIN, snd_una is behind it, and it has to be put in again."""
    return seq.add(ici.snd_una, -(ici.state in FIN_ACKED))


def _connect(
    sock: socket.socket, ici: Ici, fresh: bool, present: Mapping[str, int] | None, *, extra_bytes: int
) -> None:
    """All that is decided by or before connect(); then the connection exists, and its queues are empty."""
    options = ici.options
    _prepare(sock, ici, present)
    enter_repair(sock, options.get("SO_REUSEADDR", 0))
    if fresh or not sock.getsockname()[1]:  # one that is bound already keeps its port (paper 2.1)
        _call("bind", sock, sock.bind, _sockaddr(ici, ici.local))
    tcp_repair.select_queue(sock, SEND_QUEUE)
    tcp_repair.set_queue_seq(sock, seq.add(_first_to_send(ici), -extra_bytes))
    # The receive queue second: with the send queue selected, whatever the kernel sends counts as sent.
    tcp_repair.select_queue(sock, RECV_QUEUE)
    tcp_repair.set_queue_seq(sock, ici.copied_seq)
    # connect() computes the segment size from this, and nothing does later (tcp_connect_init()).
    tcp_repair.set_int(sock, TCP, TCP_MAXSEG, ici.negotiated.mss_clamp, "TCP_MAXSEG")
    _call("connect", sock, sock.connect, _sockaddr(ici, ici.peer))
    tcp_repair.set_int(sock, TCP, TCP_MAXSEG, 0, "TCP_MAXSEG")


def _prepare(sock: socket.socket, ici: Ici, present: Mapping[str, int] | None) -> None:
    if ici.device:
        name = ici.device.encode() + b"\0"
        tcp_repair.set_bytes(sock, SOL_SOCKET, socket.SO_BINDTODEVICE, name, "SO_BINDTODEVICE")
    tcp_repair.set_int(sock, SOL_SOCKET, socket.SO_REUSEADDR, 1, "SO_REUSEADDR")
    later = ("SO_REUSEADDR", "SO_LOCK_FILTER")
    others = {name: value for name, value in ici.options.items() if name not in later}
    if others:
        socket_options.apply_all(sock, others, present=present)
    _choose_congestion(sock, ici)
    _make_room_to_receive(sock, ici)


def _choose_congestion(sock: socket.socket, ici: Ici) -> None:
    wanted = ici.congestion.algorithm
    if wanted and tcp_repair.get_congestion(sock) != wanted:
        tcp_repair.set_congestion(sock, wanted)


def _make_room_to_receive(sock: socket.socket, ici: Ici) -> None:
    """What waits and what the peer may send must fit (paper 4.4); automatic tuning stays as it was.

    The kernel keeps about half of a receive buffer for its own bookkeeping (tcp_win_from_space()).
    """
    needed = 2 * (len(ici.receive_queue.data) + ici.window.rcv_wnd)
    if sock.getsockopt(SOL_SOCKET, socket.SO_RCVBUF) < needed:
        # The kernel doubles what is given.
        tcp_repair.set_int(sock, SOL_SOCKET, socket_options.SO_RCVBUFFORCE, needed // 2, "SO_RCVBUFFORCE")
        socket_options.set_buffer_locks(sock, ici.options.get("SO_BUF_LOCK", 0))


_Address = tuple[str, int] | tuple[str, int, int, int]


def _sockaddr(ici: Ici, end: Endpoint) -> _Address:
    if not ici.ipv6_socket:
        return socket.inet_ntoa(end.ip.packed), end.port  # str(end.ip) takes five times as long
    if end.ip.version == 4:
        return f"::ffff:{end.ip}", end.port, 0, 0
    scope = socket.if_nametoindex(ici.device) if ici.device and end.ip.is_link_local else 0
    return str(end.ip), end.port, 0, scope


def _call(name: str, sock: socket.socket, call: Callable[[_Address], None], address: _Address) -> None:
    try:
        call(address)
    except OSError as exc:
        raise tcp_repair.failed(name, sock, exc) from exc


def _negotiate(sock: socket.socket, ici: Ici) -> None:
    tcp_repair.set_options(sock, _agreed(ici.negotiated))
    if ici.timestamp is not None:
        tcp_repair.set_timestamp(sock, ici.timestamp.value)


@lru_cache(256)  # the handshakes of most connections of a server agree on the same
def _agreed(agreed: Negotiated) -> list[tuple[int, int]]:
    options = [(tcp_repair.OPT_MSS, agreed.mss_clamp)]
    if agreed.sack:
        options.append((tcp_repair.OPT_SACK, 0))
    if agreed.window_scaling:
        options.append((tcp_repair.OPT_WINDOW, agreed.snd_wscale | agreed.rcv_wscale << 16))
    if agreed.timestamps:
        options.append((tcp_repair.OPT_TIMESTAMP, 0))
    return options


def _fill_receive_queue(sock: socket.socket, ici: Ici) -> None:
    if ici.receive_queue.data:
        tcp_repair.select_queue(sock, RECV_QUEUE)
        _write(sock, ici.receive_queue.data, "send(receive queue)")


def _fill_send_queue(sock: socket.socket, ici: Ici) -> None:
    """The sent part in repair mode, so that the kernel counts it as sent; the unsent part outside of it.

    Outside of repair mode the kernel would send: what keeps it from that is the send window, still 0
    (tcp_snd_wnd_test()). No probe either: the timer for that is a second.
    """
    queue = ici.send_queue
    if not (queue.sent or queue.unsent or queue.fin):
        return
    restore = _make_room_to_send(sock, len(queue.sent) + len(queue.unsent))
    if queue.sent:
        tcp_repair.select_queue(sock, SEND_QUEUE)
        _write(sock, queue.sent, "send(sent part)")
    fin_unsent = queue.fin and not queue.fin_sent and ici.state not in FIN_ACKED
    if queue.unsent or (fin_unsent and ici.state not in FIN_IN):
        tcp_repair.set_repair(sock, tcp_repair.OFF_NO_PROBE)
        _write(sock, queue.unsent, "send(unsent part)")
        if fin_unsent and ici.state not in FIN_IN:
            _shut_down(sock)
        tcp_repair.set_repair(sock, tcp_repair.ON)
    restore()


def _make_room_to_send(sock: socket.socket, size_bytes: int) -> Callable[[], None]:
    """Raise the send buffer where the queue needs it; return what puts it back."""
    before = sock.getsockopt(SOL_SOCKET, socket.SO_SNDBUF)
    if 2 * size_bytes + 65536 <= before // 2:
        return lambda: None
    locks = sock.getsockopt(SOL_SOCKET, socket_options.SO_BUF_LOCK)
    force = socket_options.SO_SNDBUFFORCE
    tcp_repair.set_int(sock, SOL_SOCKET, force, min(2 * size_bytes + 65536, 2**30 - 1), "SO_SNDBUFFORCE")

    def restore() -> None:
        tcp_repair.set_int(sock, SOL_SOCKET, force, before // 2, "SO_SNDBUFFORCE")
        socket_options.set_buffer_locks(sock, locks)

    return restore


def _write(sock: socket.socket, data: bytes, name: str) -> None:
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


def _close_halves(sock: socket.socket, ici: Ici) -> None:
    """Bring the connection from ESTABLISHED into its state, in the order in which it got there."""
    state = ici.state
    if state is State.ESTABLISHED:
        return
    fin_sent_first = state is State.FIN_WAIT2 or (ici.send_queue.fin_sent and state is State.CLOSING)
    if fin_sent_first or (state is State.FIN_WAIT1 and ici.send_queue.fin_sent):
        _shut_down_as_sent(sock)
    if state is State.FIN_WAIT2:
        _feed(sock, ici, raw_segment.ACK, ici.rcv_nxt, ici.snd_nxt, State.FIN_WAIT2)
    if state in FIN_IN:
        _receive_fin(sock, ici)
    if state is State.LAST_ACK:
        _shut_down_last(sock, ici)
    if state is State.CLOSE:
        _shut_down_as_sent(sock)
        _feed(sock, ici, raw_segment.ACK, ici.rcv_nxt, ici.snd_nxt, State.CLOSE)


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as exc:
        raise tcp_repair.failed("shutdown", sock, exc) from exc


def _shut_down_as_sent(sock: socket.socket) -> None:
    """Put our FIN behind the send queue; with that queue selected, the kernel counts it as sent."""
    tcp_repair.select_queue(sock, SEND_QUEUE)
    _shut_down(sock)


def _shut_down_last(sock: socket.socket, ici: Ici) -> None:
    if ici.send_queue.fin_sent:
        _shut_down_as_sent(sock)
        return
    tcp_repair.set_repair(sock, tcp_repair.OFF_NO_PROBE)
    _shut_down(sock)
    tcp_repair.set_repair(sock, tcp_repair.ON)


def _receive_fin(sock: socket.socket, ici: Ici) -> None:
    expected = {State.CLOSING: State.CLOSING}.get(ici.state, State.CLOSE_WAIT)
    flags, number = raw_segment.FIN | raw_segment.ACK, seq.add(ici.rcv_nxt, -1)
    _feed(sock, ici, flags, number, _first_to_send(ici), expected)


def _feed(sock: socket.socket, ici: Ici, flags: int, number: int, ack: int, expected: State) -> None:
    """Feed a segment from the peer and wait until *sock* is in the state that it leads to.

    Its window field is 0, so that it opens no window; ours is opened to take it.
    """
    tcp_repair.select_queue(sock, NO_QUEUE)
    tcp_repair.set_window(sock, Window(seq.add(number, -1), 0, 0, max(ici.window.rcv_wnd, 1), number))
    _feed_segment(sock, ici, flags, number, ack)
    _wait(lambda: tcp_repair.get_state(sock) == expected, ici)


def _feed_segment(
    sock: socket.socket, ici: Ici, flags: int, number: int, ack: int, stamps: tuple[int, int] | None = None
) -> None:
    local = inspection.local_end(sock)
    packet = raw_segment.build(
        ici.peer, local, seq=number, ack=ack, flags=flags, window=0, timestamp=stamps
    )  # fmt: skip
    raw_segment.feed(packet, local, ici.device)


def _wait(arrived: Callable[[], bool], ici: Ici, deadline_s: float = FEED_DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not arrived():
        if time.monotonic() > deadline:
            raise Unfed(
                f"{ici}: a segment fed to this host did not arrive, so {ici.state.name} cannot be built; "
                "is there a packet filter that drops it?"
            )
        time.sleep(0.0001)


def teachable(ici: Ici) -> bool:
    """Whether CRIU's image of *ici* may have the one byte more that :func:`finish_restored` makes use of."""
    return ici.state is State.ESTABLISHED and same_path_.can_teach_rtt(ici)


def finish_restored(
    sock: socket.socket,
    ici: Ici,
    *,
    present: Mapping[str, int] | None = None,
    same_path: bool = False,
    may_feed: bool = True,
) -> None:
    """Complete a socket that CRIU restored: what CRIU does not save and what the kernel computed too early.

    :param sock: the restored socket, still in repair mode; CRIU turns that off itself.
    :param ici: what it was restored from.
    :param present: options that a fresh socket is known to have; CRIU has changed only those it saves.
    :param same_path: give the connection the congestion window and threshold it had, where
        :func:`tcpcp.congestion_state.prepare` was called and succeeded.
    :param may_feed: give it the round-trip time it had, where its image had one byte more at the head of the
        sent part of the send queue, and the peer's last timestamp where it is known.
    :raises KernelError: of the first call that failed; the connection stays usable, if slower or with
        another option.
    """
    tcp_repair.resize_segments(sock, ici.local.ip.version == 6)
    if may_feed and ici.state is State.ESTABLISHED:
        _feed_restored(sock, ici)
    if ici.state is not State.ESTABLISHED:
        # The segment that libsoccr feeds to the socket announces a window of its own, and the peer, which gets
        # no probe in these states, has no reason to say again what its window is: 3 s until more is sent.
        tcp_repair.set_window(sock, ici.window)
    _choose_congestion(sock, ici)
    congestion_state.restore(sock, ici, same_path=same_path)
    socket_options.apply_all(sock, ici.options, but_criu_saved=True, present=present)


def _feed_restored(sock: socket.socket, ici: Ici) -> None:
    """One segment for two purposes; then the window is what it was.

    :raises KernelError: it did not arrive.
    """
    queue, stamp = ici.send_queue, ici.timestamp
    if stamp is None:
        return
    if tcp_repair.get_outq(sock) > len(queue.sent) + len(queue.unsent):
        same_path_.teach_rtt(sock, ici, ici.rcv_nxt, ici.snd_una)
    elif stamp.ts_recent is not None:
        _prime_ts_recent(sock, ici, ici.rcv_nxt, ici.snd_una)
    else:
        return
    tcp_repair.set_window(sock, ici.window)


def discard(sock: socket.socket) -> None:
    """Close *sock* without a packet, whatever it is in the middle of.

    :raises KernelError: repair mode could not be entered; the socket is open still.
    """
    tcp_repair.set_repair(sock, tcp_repair.ON)
    reuse_before.pop(sock, None)
    sock.close()
