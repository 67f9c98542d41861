"""From an ICI to a socket: rebuilds an endpoint, in two halves. The recipe is in `calls`."""

from __future__ import annotations

import socket
from typing import NamedTuple

from tcpcp.endpoint import (
    congestion,
    connecting,
    feeding,
    filling,
    first_namespace,
    halves,
    raw_segment,
    receive_window,
    repair_mode,
    socket_ends,
    socket_options,
)
from tcpcp.endpoint import same_path as same_path_
from tcpcp.endpoint.inspection import READABLE
from tcpcp.endpoint.socket_options import Fresh
from tcpcp.errors import Unfed, Unsupported
from tcpcp.kernel import socket_filter, tcp_repair
from tcpcp.kernel.tcp_repair import NO_QUEUE
from tcpcp.record.checks import Limits
from tcpcp.record.ici import Endpoint, Ici, State

#: Options that are set before the others, or after the queues have been filled.
_SET_ELSEWHERE = socket_options.LAST | {"SO_REUSEADDR", "TCP_WINDOW_CLAMP"}
#: Options of :func:`tcpcp.endpoint.socket_options.set_last`.
_LIMITS = frozenset({"TCP_NOTSENT_LOWAT", "SO_LOCK_FILTER"})


def begin(
    ici: Ici,
    sock: socket.socket | None = None,
    *,
    limits: Limits,
    fresh: Fresh | None = None,
) -> socket.socket:
    """The first half: a socket with all that must be known before it connects, bound, in repair mode.

    :param sock: to be used instead of a fresh one; where it is bound already it keeps its port (paper 2.1).
    :param limits: of this host.
    :param fresh: what a fresh socket of that family has here, if that is known.
    :return: *sock*, or a fresh one, which is blocking whatever Python's default timeout is.
    :raises AddressInUse: the local port is taken. :raises PermissionDenied: it is not for everybody.
    :raises KernelError: a socket made here is closed; one that was given has some options more.
    """
    if ici.state not in READABLE:
        raise Unsupported(f"{ici}: an endpoint in state {ici.state.name} cannot be built")
    made = sock
    if made is None:
        with connecting.Naming(ici):
            made = tcp_repair.opened(ici.family, socket.SOCK_STREAM)
        if made.gettimeout() is not None:
            made.settimeout(None)
    try:
        with connecting.Naming(ici):
            _prepare(made, ici, limits, None if sock else fresh)
            repair_mode.force_reuse(made)
            if sock is None or not made.getsockname()[1]:
                connecting.bind(made, ici)
            reuse = ici.options.get("SO_REUSEADDR", 0)
            tcp_repair.set_int(made, socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse, "SO_REUSEADDR")
    except BaseException:
        if sock is None:
            repair_mode.discard(made)
        elif tcp_repair.get_repair(made):
            repair_mode.leave_repair(made, tcp_repair.OFF_NO_PROBE)
        raise
    return made


def complete(
    sock: socket.socket,
    ici: Ici,
    *,
    limits: Limits,
    same_path: bool = False,
    may_feed: bool = True,
    local: Endpoint | None = None,
    given: bool = True,
) -> bool:
    """The second half: the connection, its queues, its state, its window. It must be isolated; nothing is sent.

    :param sock: from :func:`begin`.
    :param same_path: give the connection the window and threshold it had.
    :param may_feed: there is CAP_NET_RAW, so that the peer's timestamp and the round-trip time can be set.
    :param local: where *sock* is bound, if that is known.
    :param given: :func:`begin` was given *sock*; False: it made it, so that less has to be asked and set.
    :return: False where a segment that was fed for their sake did not arrive; the connection works without.
    :raises AddressInUse: the connection exists on this host. :raises KernelError: naming the call. After any
        error *sock* is in repair mode: :func:`tcpcp.endpoint.repair_mode.discard` it.
    """
    local = local or socket_ends.local_end(sock)
    may_feed = may_feed and raw_segment.stays_here(local, feeding.feeding_device(ici, local))
    way = _Way(limits, same_path, may_feed, local, given)
    timeout = sock.gettimeout()
    if timeout is None:
        return _complete(sock, ici, way)
    sock.settimeout(None)  # Python's own waiting would look at the wrong queue
    try:
        return _complete(sock, ici, way)
    finally:
        sock.settimeout(timeout)


class _Way(NamedTuple):
    """How :func:`complete` is to go about it: its arguments."""

    limits: Limits
    same_path: bool
    may_feed: bool
    local: Endpoint
    given: bool


def _connect(sock: socket.socket, ici: Ici, way: _Way, extra_bytes: int) -> None:
    with connecting.Naming(ici):
        connecting.connect(sock, ici, way.local, extra_bytes=extra_bytes)
        connecting.choose_congestion(sock, ici)  # again: connect() takes the route's, where that has one
    connecting.negotiate(sock, ici)


def _complete(sock: socket.socket, ici: Ici, way: _Way) -> bool:
    teach = way.may_feed and same_path_.can_teach_rtt(ici, same_path=way.same_path)
    _connect(sock, ici, way, same_path_.bytes_to_teach(ici) if teach else 0)
    deaf = feeding.is_deaf(ici)
    if deaf:
        connecting.bind_to_device(sock, "")
    heard = _prime(sock, ici, teach, way)
    if teach and not heard:
        # Or what was to be acknowledged first would be sent again, and probes would be from before it.
        connecting.take_apart(sock)
        _connect(sock, ici, way, 0)
    filling.fill_receive_queue(sock, ici)
    filling.fill_send_queue(sock, ici)
    closed = ici.state is State.CLOSE
    if closed:  # before it is: no algorithm begins in a closed socket (tcp_reinit_congestion_control())
        congestion.restore(sock, ici, same_path=way.same_path)
    halves.close_halves(sock, ici)
    if deaf:
        connecting.bind_to_device(sock, ici.device)
    if ici.socket_filter:
        socket_filter.attach(sock, ici.socket_filter)
    if not closed:
        congestion.restore(sock, ici, same_path=way.same_path)
    _set_sizes(sock, ici, way)
    lower, clamp = receive_window.around(ici)
    last = (
        # First, or an acknowledgement that was delayed would tell a window as large as connect() has made it.
        *lower,
        # Until here the send window is 0, so whatever went wrong in between, nothing was sent.
        tcp_repair.window_(ici.window),
        # After that, for a segment is never larger than half the largest window (tcp_bound_to_half_wnd()).
        *tcp_repair.RESIZING[ici.local.ip.version == 6],
        *clamp,
        tcp_repair.QUEUES[NO_QUEUE],  # who writes to it too early gets an error
    )
    tcp_repair.set_each(sock, last)
    return heard


def _prime(sock: socket.socket, ici: Ici, teach: bool, way: _Way) -> bool:
    """Feed what the connection is to know of its peer; whether it arrived."""
    if not teach and not (way.may_feed and feeding.is_to_be_fed(ici)):
        return True
    window = feeding.window_field(ici)
    try:
        if teach:
            feeding.teach_rtt(sock, ici)
        else:
            # connect() has opened a window for it, and the receive queue is selected, so that nothing is sent.
            before = tcp_repair.get_segments_in(sock) if way.given else 0
            number = ici.copied_seq
            if window:  # a window is told anew by what comes after snd_wl1, which is 0
                feeding.open_window(sock, ici, number)
            feeding.feed_last(sock, ici, way.local, number, feeding.first_to_send(ici), before)
    except Unfed:
        return False
    queue = ici.send_queue
    if window and (queue.sent or queue.unsent):  # that of the peer is shut again, so that nothing is sent
        feeding.open_window(sock, ici, ici.copied_seq)
    return True


def _prepare(sock: socket.socket, ici: Ici, limits: Limits, fresh: Fresh | None) -> None:
    if ici.device:
        connecting.bind_to_device(sock, ici.device)
    if ici.ipv6_socket and ici.local.ip.version == 4:
        # net.ipv6.bindv6only may say otherwise here, and an IPv4-mapped address is then refused.
        socket_options.apply_all(sock, {"IPV6_V6ONLY": 0}, present=fresh.options if fresh else None)
    if fresh:
        fresh.apply(sock, ici.options, _SET_ELSEWHERE)
    elif others := {name: value for name, value in ici.options.items() if name not in _SET_ELSEWHERE}:
        socket_options.apply_all(sock, others)
    if fresh is None or ici.congestion.algorithm != fresh.algorithm:
        connecting.choose_congestion(sock, ici)
    # connect() derives from this how large a window there will be.
    size = min(ici.options.get("SO_RCVBUF", 0), limits.max_receive_buffer_bytes)
    if size:
        first_namespace.set_size(sock, "SO_RCVBUF", size // 2)


def _set_sizes(sock: socket.socket, ici: Ici, way: _Way) -> None:
    """What must not limit the queues while they are filled, and so is set when they are."""
    limits = way.limits
    socket_options.set_buffers(
        sock,
        ici.options,
        limits.max_receive_buffer_bytes,
        limits.max_send_buffer_bytes,
        receive_is_set=not ici.receive_queue.data,  # by _prepare(), and nothing has changed it
    )
    if way.given or ici.send_queue.unsent or ici.options.keys() & _LIMITS:
        socket_options.set_last(sock, ici.options)
    if ici.receive_queue.shut:
        filling.shut_down(sock, socket.SHUT_RD)
