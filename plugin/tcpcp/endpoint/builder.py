"""From an ICI to a socket: rebuilds an endpoint, or completes one that CRIU rebuilt. See `endpoint`."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from tcpcp.endpoint import congestion, first_namespace, inspection, raw_segment, socket_options
from tcpcp.endpoint import same_path as same_path_
from tcpcp.endpoint.inspection import READABLE
from tcpcp.endpoint.reader import enter_repair, force_reuse, leave_repair
from tcpcp.endpoint.socket_options import Fresh
from tcpcp.errors import AddressInUse, KernelError, Unfed, Unsupported
from tcpcp.kernel import socket_filter, tcp_repair
from tcpcp.kernel.tcp_repair import NO_QUEUE, RECV_QUEUE, SEND_QUEUE, TCP, TCP_MAXSEG
from tcpcp.record import seq
from tcpcp.record.checks import Limits
from tcpcp.record.ici import FIN_ACKED, FIN_IN, Endpoint, Ici, Negotiated, State, Window
from tcpcp.record.option_names import OPTIONS

SOL_SOCKET = socket.SOL_SOCKET

#: How long a segment fed to our own stack may take to arrive.
FEED_DEADLINE_S = 2.0

#: What connect() was told is not for what comes after.
_ROUTES_MSS: tcp_repair.Setting = (TCP, TCP_MAXSEG, 0, "TCP_MAXSEG")
#: What TCP_MAXSEG takes: TCP_MIN_MSS to MAX_TCP_WINDOW (include/net/tcp.h).
_SETTABLE_MSS = range(88, 32768)
_TCP_WINDOW_CLAMP, _NO_LOWAT = 10, 2**32 - 1
#: What the kernel guesses at most (TCP_MSS_DEFAULT), and how long timestamps are in a segment.
_LARGEST_GUESS, _STAMPS_BYTES = 536, 12
_MORE_THAN_A_SEGMENT = 2**17
#: Options that are set before the others, or after the queues have been filled.
_SET_ELSEWHERE = socket_options.LAST | {"SO_REUSEADDR", "TCP_WINDOW_CLAMP"}
#: Options of :func:`tcpcp.endpoint.socket_options.set_last`.
_LIMITS = frozenset({"TCP_NOTSENT_LOWAT", "SO_LOCK_FILTER"})
#: States in which our FIN was queued before the peer's arrived, or where that came out the same.
_FIN_BEFORE_PEERS = frozenset({State.FIN_WAIT1, State.CLOSING})


def feeds(ici: Ici) -> bool:
    """Whether :func:`build` needs CAP_NET_RAW: its state is reached only by a segment that arrives."""
    return ici.state in FIN_IN | FIN_ACKED


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
    :raises AddressInUse: the local port is taken.
    :raises KernelError: a socket made here is closed; one that was given has some options more.
    """
    if ici.state not in READABLE:
        raise Unsupported(f"{ici}: an endpoint in state {ici.state.name} cannot be built")
    made = sock
    if made is None:
        family = socket.AF_INET6 if ici.ipv6_socket else socket.AF_INET
        with _Naming(ici):
            made = tcp_repair.opened(family, socket.SOCK_STREAM)
        if made.gettimeout() is not None:
            made.settimeout(None)
    try:
        with _Naming(ici):
            _prepare(made, ici, limits, None if sock else fresh)
            force_reuse(made)
            if sock is None or not made.getsockname()[1]:
                _bind(made, ici)
            reuse = ici.options.get("SO_REUSEADDR", 0)
            tcp_repair.set_int(made, SOL_SOCKET, socket.SO_REUSEADDR, reuse, "SO_REUSEADDR")
    except BaseException:
        if sock is None:
            discard(made)
        elif tcp_repair.get_repair(made):
            leave_repair(made, tcp_repair.OFF_NO_PROBE)
        raise
    return made


def _bind(sock: socket.socket, ici: Ici) -> None:
    """To the local end of *ici*.

    A listener takes connections to every address that a local route leads to, whole prefixes of them; bind() does
    so too with IPv4, but with IPv6 only to an address of an interface (net/ipv6/af_inet6.c __inet6_bind()).
    """
    try:
        _call("bind", sock, sock.bind, _sockaddr(ici, ici.local))
    except KernelError as exc:
        if exc.errno != errno.EADDRNOTAVAIL or ici.local.ip.version == 4:
            raise
        freebind = OPTIONS["IPV6_FREEBIND"]
        tcp_repair.set_int(sock, freebind.level, freebind.number, 1, freebind.name)
        _call("bind", sock, sock.bind, _sockaddr(ici, ici.local))
        tcp_repair.set_int(sock, freebind.level, freebind.number, 0, freebind.name)


class _Naming:
    """Errors say which connection it is: a socket that is not connected yet cannot.

    A class, because a generator would take 1 us of each connection's time.
    """

    __slots__ = ("_ici",)

    def __init__(self, ici: Ici) -> None:
        self._ici = ici

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KernelError):
            raise KernelError(error.call, error.errno, str(self._ici)) from error
        if isinstance(error, OSError):
            raise KernelError("if_nametoindex", error.errno or errno.ENODEV, str(self._ici)) from error


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
        error *sock* is in repair mode: :func:`discard` it.
    """
    local = local or inspection.local_end(sock)
    may_feed = may_feed and raw_segment.stays_here(local, _feeding_device(ici, local))
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


def _complete(sock: socket.socket, ici: Ici, way: _Way) -> bool:
    teach = way.may_feed and same_path_.can_teach_rtt(ici, same_path=way.same_path)
    with _Naming(ici):
        _connect(sock, ici, extra_bytes=int(teach))
        _choose_congestion(sock, ici)  # again: connect() takes the route's, where that has one
    _negotiate(sock, ici)
    deaf = _is_deaf(ici)
    if deaf:
        _bind_to_device(sock, "")
    heard = _prime(sock, ici, teach, way)
    _fill_receive_queue(sock, ici)
    _fill_send_queue(sock, ici)
    closed = ici.state is State.CLOSE
    if closed:  # before it is: no algorithm begins in a closed socket (tcp_reinit_congestion_control())
        congestion.restore(sock, ici, same_path=way.same_path)
    _close_halves(sock, ici)
    if deaf:
        _bind_to_device(sock, ici.device)
    if ici.socket_filter:
        socket_filter.attach(sock, ici.socket_filter)
    if not closed:
        congestion.restore(sock, ici, same_path=way.same_path)
    _set_sizes(sock, ici, way)
    lower, clamp = _clamps(ici)
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


def _is_deaf(ici: Ici) -> bool:
    """What is fed arrives by the loopback interface, where a socket bound to another one does not hear it."""
    return bool(ici.device) and not ici.local.is_link_local


def _prime(sock: socket.socket, ici: Ici, teach: bool, way: _Way) -> bool:
    """Feed what the connection is to know of its peer; whether it arrived."""
    if not teach and not (way.may_feed and _is_to_be_fed(ici)):
        return True
    window = _window_field(ici)
    try:
        if teach:
            _teach_rtt(sock, ici)
        else:
            # connect() has opened a window for it, and the receive queue is selected, so that nothing is sent.
            before = tcp_repair.get_segments_in(sock) if way.given else 0
            number = ici.copied_seq
            if window:  # a window is told anew by what comes after snd_wl1, which is 0
                _open_window(sock, ici, number)
            _feed_last(sock, ici, way.local, number, _first_to_send(ici), before)
    except Unfed:
        return False
    queue = ici.send_queue
    if window and (queue.sent or queue.unsent):  # that of the peer is shut again, so that nothing is sent
        _open_window(sock, ici, ici.copied_seq)
    return True


def _is_to_be_fed(ici: Ici) -> bool:
    """Whether what the peer has said last has to be fed, for its timestamp or its window."""
    return (ici.timestamp is not None and ici.timestamp.ts_recent is not None) or _window_field(ici) > 0


def _window_field(ici: Ici) -> int:
    """How the peer tells the window that it has told, where the kernel predicts what it tells next, else 0.

    A segment with the window that was predicted is not looked at for its window (net/ipv4/tcp_input.c
    tcp_rcv_established(), tcp_ack()). connect() predicts 0, and TCP_REPAIR_WINDOW leaves it at that: the first
    segment that shuts the window would be overlooked, and we would send beyond it. What opens a window predicts
    anew (tcp_ack_update_window()), so that is what is fed: where the window is 0 already, 0 is right.
    """
    if ici.state is not State.ESTABLISHED:  # in the others each segment is looked at
        return 0
    return ici.window.told(ici.negotiated.snd_wscale)


def _teach_rtt(sock: socket.socket, ici: Ici) -> None:
    tcp_repair.select_queue(sock, SEND_QUEUE)
    _write(sock, b"\0", "send(one byte to time)")
    tcp_repair.select_queue(sock, NO_QUEUE)
    same_path_.teach_rtt(sock, ici, ici.copied_seq, _first_to_send(ici), _window_field(ici))


def _feed_last(sock: socket.socket, ici: Ici, local: Endpoint, number: int, ack: int, before: int) -> None:
    """Let the kernel see the peer's timestamp, so that the first segment sent echoes it and not 0, and its window.

    :param number: ``rcv_nxt`` now; :param ack: ``snd_una``. The send window is 0.
    :param before: how many segments have arrived for *sock* so far.
    """
    stamp, window, stamps = ici.timestamp, _window_field(ici), None
    if stamp is not None and stamp.ts_recent is not None:
        stamps = stamp.ts_recent, stamp.value
    _feed_segment(local, ici, raw_segment.ACK, number, ack, stamps, window)

    def arrived() -> bool:
        if window:
            return tcp_repair.get_send_window(sock) > 0
        return tcp_repair.get_segments_in(sock) != before

    _wait(arrived, ici, same_path_.FEED_DEADLINE_S)


def _first_to_send(ici: Ici) -> int:
    """Where the peer has acknowledged our FIN, snd_una is behind it, and it has to be put in again."""
    return seq.add(ici.snd_una, -(ici.state in FIN_ACKED))


def _connect(sock: socket.socket, ici: Ici, *, extra_bytes: int) -> None:
    """All that is decided by connect(); then the connection exists, and its queues are empty."""
    announced = max(ici.negotiated.advmss, _SETTABLE_MSS.start)
    if announced not in _SETTABLE_MSS:
        announced = 0
    settings = (
        tcp_repair.QUEUES[SEND_QUEUE],
        tcp_repair.queue_seq(seq.add(_first_to_send(ici), -extra_bytes)),
        # The receive queue second: with the send queue selected, whatever the kernel sends counts as sent.
        tcp_repair.QUEUES[RECV_QUEUE],
        tcp_repair.queue_seq(ici.copied_seq),
        _guessing_window(ici),
        # connect() takes the smaller of this and the route's for advmss (tcp_connect_init()).
        (TCP, TCP_MAXSEG, announced, "TCP_MAXSEG"),
    )
    tcp_repair.set_each(sock, settings)
    _call("connect", sock, sock.connect, _sockaddr(ici, ici.peer))


def _guessing_window(ici: Ici) -> tcp_repair.Setting:
    """For connect(), which sets another, but first guesses from half of this how large the peer's segments are.

    Where there is none it takes 88 bytes, and the first segment that is larger than the guess is what the kernel
    computes from how much of a buffer is window (tcp_initialize_rcv_mss(), tcp_measure_rcv_mss()): after a
    request of 200 bytes a third of the window would be left. This is the guess after a handshake: as much as
    we may send, 536 at most. What has been measured since is measured again.
    """
    largest = ici.negotiated.mss_clamp - _STAMPS_BYTES * ici.negotiated.timestamps
    room = 2 * max(1, min(largest, _LARGEST_GUESS))
    return tcp_repair.window_of(ici.copied_seq, 0, 0, room, ici.copied_seq)


def _prepare(sock: socket.socket, ici: Ici, limits: Limits, fresh: Fresh | None) -> None:
    if ici.device:
        _bind_to_device(sock, ici.device)
    if ici.ipv6_socket and ici.local.ip.version == 4:
        # net.ipv6.bindv6only may say otherwise here, and an IPv4-mapped address is then refused.
        socket_options.apply_all(sock, {"IPV6_V6ONLY": 0}, present=fresh.options if fresh else None)
    if fresh:
        fresh.apply(sock, ici.options, _SET_ELSEWHERE)
    elif others := {name: value for name, value in ici.options.items() if name not in _SET_ELSEWHERE}:
        socket_options.apply_all(sock, others)
    if fresh is None or ici.congestion.algorithm != fresh.algorithm:
        _choose_congestion(sock, ici)
    # connect() derives from this how large a window there will be.
    size = min(ici.options.get("SO_RCVBUF", 0), limits.max_receive_buffer_bytes)
    if size:
        first_namespace.set_size(sock, "SO_RCVBUF", size // 2)


def _bind_to_device(sock: socket.socket, name: str) -> None:
    tcp_repair.set_bytes(
        sock, SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0", "SO_BINDTODEVICE"
    )  # fmt: skip


def _choose_congestion(sock: socket.socket, ici: Ici) -> None:
    """That of *ici*; a route may have one that it locks, which is this host's to decide."""
    wanted = ici.congestion.algorithm
    if not wanted or tcp_repair.get_congestion(sock) == wanted:
        return
    try:
        tcp_repair.set_congestion(sock, wanted)
    except KernelError as exc:
        if exc.errno != errno.EPERM:
            raise


def _clamps(ici: Ici) -> tuple[list[tcp_repair.Setting], list[tcp_repair.Setting]]:
    """The window's clamp, and with it what the window grows from: not less than what was promised.

    :return: what is set before the window, and what after it: the kernel looks at the window only where the
        clamp changes (tcp_set_window_clamp()).
    """
    clamp = ici.options.get("TCP_WINDOW_CLAMP", 0)
    if clamp <= 1:
        return [], []
    name = "TCP_WINDOW_CLAMP"
    return [(TCP, _TCP_WINDOW_CLAMP, clamp - 1, name)], [(TCP, _TCP_WINDOW_CLAMP, clamp, name)]


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
        _shut_down(sock, socket.SHUT_RD)


_Address = tuple[str, int] | tuple[str, int, int, int]


def _sockaddr(ici: Ici, end: Endpoint) -> _Address:
    if not ici.ipv6_socket:
        return socket.inet_ntoa(end.packed), end.port  # str(end.ip) takes five times as long
    if end.ip.version == 4:
        return f"::ffff:{end.ip}", end.port, 0, 0
    scope = socket.if_nametoindex(ici.device) if ici.device and end.ip.is_link_local else 0
    return str(end.ip), end.port, 0, scope


def _call(name: str, sock: socket.socket, call: Callable[[_Address], None], address: _Address) -> None:
    try:
        call(address)
    except OSError as exc:
        # connect() says EADDRNOTAVAIL where the connection exists (__inet_check_established()).
        if exc.errno == errno.EADDRINUSE or (name == "connect" and exc.errno == errno.EADDRNOTAVAIL):
            ends = f"{tcp_repair.describe(sock)}: {name} {address[0]} port {address[1]}"
            raise AddressInUse(f"{ends}: the connection exists on this host, or its port is taken") from exc
        raise tcp_repair.failed(name, sock, exc) from exc


def _negotiate(sock: socket.socket, ici: Ici) -> None:
    settings = [_ROUTES_MSS, tcp_repair.negotiated(_agreed(ici.negotiated))]
    # Else nothing is cut into segments before the size is set.
    if ici.send_queue.sent or ici.send_queue.unsent:
        settings += tcp_repair.RESIZING[ici.local.ip.version == 6]
    if ici.timestamp is not None:
        settings.append(tcp_repair.timestamp(ici.timestamp.value))
    tcp_repair.set_each(sock, settings)


@lru_cache(256)  # the handshakes of most connections of a server agree on the same
def _agreed(agreed: Negotiated) -> list[tuple[int, int]]:
    # The window's shift always: connect() in repair mode has computed one from this host's settings, and
    # without the option it stays, unseen by TCP_INFO (tcp_connect_init(), tcp_repair_options_est()).
    shifts = agreed.snd_wscale | agreed.rcv_wscale << 16
    options = [(tcp_repair.OPT_MSS, agreed.mss_clamp), (tcp_repair.OPT_WINDOW, shifts)]
    if agreed.sack:
        options.append((tcp_repair.OPT_SACK, 0))
    if agreed.timestamps:
        options.append((tcp_repair.OPT_TIMESTAMP, 0))
    return options


def _fill_receive_queue(sock: socket.socket, ici: Ici) -> None:
    data = ici.receive_queue.data
    if not data:
        return
    # The kernel counts whole buffers (tcp_try_rmem_schedule()); what the size was is set afterwards.
    needed = first_namespace.queue_bytes(len(data))
    if tcp_repair.get_int(sock, SOL_SOCKET, socket.SO_RCVBUF, "SO_RCVBUF") < needed:
        first_namespace.set_size(sock, "SO_RCVBUF", needed // 2)
    tcp_repair.select_queue(sock, RECV_QUEUE)
    _write(sock, data, "send(receive queue)")


def _fill_send_queue(sock: socket.socket, ici: Ici) -> None:
    """The sent part in repair mode, so that the kernel counts it as sent; the unsent part outside of it.

    Outside of repair mode the kernel would send: what keeps it from that is the send window, still 0
    (tcp_snd_wnd_test()). No probe either: the timer for that is a second.
    """
    queue = ici.send_queue
    if not (queue.sent or queue.unsent or queue.fin):
        return
    # The kernel counts whole buffers, in which a small segment is alone; what the size was is set afterwards.
    first_namespace.set_size(sock, "SO_SNDBUF", first_namespace.LARGEST_BUFFER)
    if queue.sent:
        tcp_repair.select_queue(sock, SEND_QUEUE)
        _write(sock, queue.sent, "send(sent part)")
    fin_first = queue.fin and not queue.fin_sent and ici.state in _FIN_BEFORE_PEERS
    if not (queue.unsent or fin_first):
        return
    if queue.unsent:
        # The option, or net.ipv4.tcp_notsent_lowat here, would stop the writing.
        socket_options.apply_all(sock, {"TCP_NOTSENT_LOWAT": _NO_LOWAT})
    with _outside_repair_mode(sock, ici):
        _write(sock, queue.unsent, "send(unsent part)")
        if fin_first:
            _shut_down(sock)


@contextlib.contextmanager
def _outside_repair_mode(sock: socket.socket, ici: Ici) -> Iterator[None]:
    tcp_repair.set_repair(sock, tcp_repair.OFF_NO_PROBE)
    yield
    enter_repair(sock, ici.options.get("SO_REUSEADDR", 0))


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


def _shut_down(sock: socket.socket, how: int = socket.SHUT_WR) -> None:
    try:
        sock.shutdown(how)
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
    with _outside_repair_mode(sock, ici):
        _shut_down(sock)


def _receive_fin(sock: socket.socket, ici: Ici) -> None:
    expected = {State.CLOSING: State.CLOSING}.get(ici.state, State.CLOSE_WAIT)
    flags, number = raw_segment.FIN | raw_segment.ACK, seq.add(ici.rcv_nxt, -1)
    _feed(sock, ici, flags, number, _first_to_send(ici), expected)
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


def _feed(sock: socket.socket, ici: Ici, flags: int, number: int, ack: int, expected: State) -> None:
    """Feed a segment from the peer and wait until *sock* is in the state that it leads to.

    Its window field is 0, so that it opens no window; ours is opened to take it.
    """
    tcp_repair.select_queue(sock, NO_QUEUE)
    _open_window(sock, ici, number)
    _feed_segment(inspection.local_end(sock), ici, flags, number, ack)
    _wait(lambda: tcp_repair.get_state(sock) == expected, ici)


def _open_window(sock: socket.socket, ici: Ici, number: int) -> None:
    """For a segment with the sequence number *number*, whose own window it makes no use of."""
    opened = tcp_repair.window_of(seq.add(number, -1), 0, 0, max(ici.window.rcv_wnd, 1), number)
    tcp_repair.set_each(sock, [opened])


def _feed_segment(
    local: Endpoint,
    ici: Ici,
    flags: int,
    number: int,
    ack: int,
    stamps: tuple[int, int] | None = None,
    window: int = 0,
) -> None:
    packet = raw_segment.build(
        ici.peer, local, seq=number, ack=ack, flags=flags, window=window, timestamp=stamps
    )  # fmt: skip
    raw_segment.feed(packet, local, _feeding_device(ici, local))


def _feeding_device(ici: Ici, local: Endpoint) -> str:
    """The interface by which *local* is to be reached, where it has to be named."""
    return ici.device if local.is_link_local else ""


def _wait(arrived: Callable[[], bool], ici: Ici, deadline_s: float = FEED_DEADLINE_S) -> None:
    if arrived():  # as nearly always: it is handled before feeding returns
        return
    deadline = time.monotonic() + deadline_s
    while not arrived():
        if time.monotonic() > deadline:
            raise Unfed(
                f"{ici}: a segment fed to this host did not arrive, so {ici.state.name} cannot be built; "
                f"{raw_segment.why_lost()}"
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
        :func:`tcpcp.endpoint.congestion.prepare` was called and succeeded.
    :param may_feed: give it the round-trip time it had, where its image had one byte more at the head of the
        sent part of the send queue, and the peer's last timestamp where it is known.
    :raises KernelError: of the first call that failed; the connection stays usable, if slower or with
        another option.
    """
    tcp_repair.resize_segments(sock, ici.local.ip.version == 6)
    if may_feed and ici.state is State.ESTABLISHED:
        deaf = _is_deaf(ici)
        if deaf:
            _bind_to_device(sock, "")
        try:
            _feed_restored(sock, ici)
        finally:  # what does not arrive is no reason to stay unbound: the caller goes on without it
            if deaf:
                _bind_to_device(sock, ici.device)
    if ici.state is not State.ESTABLISHED:
        # The segment that libsoccr feeds to the socket announces a window of its own, and the peer, which gets
        # no probe in these states, has no reason to say again what its window is: 3 s until more is sent.
        tcp_repair.set_window(sock, ici.window)
    _choose_congestion(sock, ici)
    congestion.restore(sock, ici, same_path=same_path)
    socket_options.apply_all(sock, ici.options, but_criu_saved=True, present=present)
    if ici.receive_queue.shut:
        _shut_down(sock, socket.SHUT_RD)


def _feed_restored(sock: socket.socket, ici: Ici) -> None:
    """One segment for two purposes; then the window is what it was.

    :raises KernelError: it did not arrive.
    """
    queue = ici.send_queue
    if tcp_repair.get_outq(sock) > len(queue.sent) + len(queue.unsent):
        same_path_.teach_rtt(sock, ici, ici.rcv_nxt, ici.snd_una, _window_field(ici))
    elif _is_to_be_fed(ici):
        tcp_repair.select_queue(sock, NO_QUEUE)
        _open_window(sock, ici, ici.rcv_nxt)
        before = tcp_repair.get_segments_in(sock)
        _feed_last(sock, ici, inspection.local_end(sock), ici.rcv_nxt, ici.snd_una, before)
    else:
        return
    tcp_repair.set_window(sock, ici.window)


def discard(sock: socket.socket) -> None:
    """End the connection of *sock* without a packet, whatever it is in the middle of, and close it.

    It ends for all who hold the socket: another descriptor, another process, a thread that waits, which wakes. They
    have a socket out of repair mode, and without the mark that lets it be bound beside those of others.

    :raises KernelError: repair mode could not be entered; the socket is open still.
    """
    if not tcp_repair.get_repair(sock):
        tcp_repair.set_repair(sock, tcp_repair.ON)  # which sets the mark
    tcp_repair.disconnect(sock)
    with contextlib.suppress(KernelError):
        leave_repair(sock, tcp_repair.OFF_NO_PROBE)
    sock.close()
