"""From a live socket to an ICI: whether it can be passed, and what it holds. The recipe is in `endpoint`."""

from __future__ import annotations

import errno
import ipaddress
import select
import socket
from collections.abc import Iterable, Sequence
from functools import lru_cache
from weakref import WeakKeyDictionary

from tcpcp import seq, socket_options, tcp_repair
from tcpcp.errors import KernelError, PermissionDenied, TcpcpError, Unsupported
from tcpcp.ici import (
    FIN_IN,
    Congestion,
    Endpoint,
    Ici,
    Negotiated,
    ReceiveQueue,
    SendQueue,
    State,
    Timestamp,
)
from tcpcp.tcp_repair import RECV_QUEUE, SEND_QUEUE, TCP

#: States that an ICI can describe and `create` can rebuild.
READABLE = frozenset(
    {
        State.ESTABLISHED,
        State.FIN_WAIT1,
        State.FIN_WAIT2,
        State.CLOSE_WAIT,
        State.LAST_ACK,
        State.CLOSING,
    }
)
#: States with our FIN among the bytes that the peer has not acknowledged.
FIN_UNACKED = frozenset({State.FIN_WAIT1, State.LAST_ACK, State.CLOSING})

#: How often a socket that keeps moving is read again before we give up.
MAX_READS = 5

_STATES = {int(state): state for state in State}
#: What this kernel has not got.
_absent: set[str] = set()
_NO_SEND = SendQueue()
_NO_RECEIVE = ReceiveQueue()
_TCP_REUSE, _TCP_OOBINLINE = socket.SO_REUSEADDR, socket.SO_OOBINLINE

#: SO_REUSEADDR as it was before repair mode, which overwrites it.
reuse_before: WeakKeyDictionary[socket.socket, int] = WeakKeyDictionary()


def inspect(sock: socket.socket) -> None:
    """Check that *sock* can be passed. Changes nothing and works on a socket in use.

    :param sock: a TCP socket, connected; not in repair mode.
    :raises Unsupported: it is MPTCP, has kTLS or another upper layer protocol, TCP-AO, urgent data not yet
        read, or is in a state that an ICI does not describe. TCP-MD5 shows only in :mod:`tcpcp.diag`.
    :raises KernelError: it is not a socket that can be asked.
    """
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise Unsupported(f"not a TCP socket: {sock.family.name}, {sock.type.name}")
    protocol = tcp_repair.get_int(sock, socket.SOL_SOCKET, socket.SO_PROTOCOL, "SO_PROTOCOL")
    if protocol == tcp_repair.IPPROTO_MPTCP:
        raise Unsupported("Multipath TCP refuses repair mode; let the program use plain TCP")
    if protocol != socket.IPPROTO_TCP:
        raise Unsupported(f"not a TCP socket: protocol {protocol}")
    _check_state(sock, tcp_repair.get_info(sock).state)
    _check_protocols(sock)
    if has_urgent(sock):
        raise Unsupported(f"{_name(sock)}: urgent data is waiting to be read; try again when it has been")


def _check_protocols(sock: socket.socket) -> None:
    if ulp := tcp_repair.get_ulp(sock):
        raise Unsupported(f"{_name(sock)}: protocol {ulp} above TCP: its keys cannot be read from the kernel")
    if _has_ao(sock):
        raise Unsupported(f"{_name(sock)}: TCP-AO: its keys cannot be read from the kernel")


def has_urgent(sock: socket.socket) -> bool:
    """Whether urgent data has arrived and is not yet read.

    Not seen: a mark ahead in the stream whose byte was read with MSG_OOB. :func:`read` sees it.
    """
    poll = select.poll()
    poll.register(sock, select.POLLPRI)
    urgent = any(events & select.POLLPRI for _, events in poll.poll(0))  # POLLHUP comes unasked
    return urgent or tcp_repair.at_mark(sock)


def _has_ao(sock: socket.socket) -> bool:
    """Unlike the information itself, the reason why there is none does not depend on the struct's size."""
    if "TCP_AO" in _absent:
        return False
    try:
        sock.getsockopt(TCP, tcp_repair.TCP_AO_INFO, 64)
    except OSError as exc:
        if exc.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            _absent.add("TCP_AO")  # a kernel without it need not be asked for every socket
        return exc.errno == errno.EINVAL
    return True


def _name(sock: socket.socket) -> str:
    return tcp_repair.describe(sock)


def _check_state(sock: socket.socket, state: int) -> None:
    if state not in READABLE:
        raise Unsupported(f"{_name(sock)}: state {State(state).name} cannot be passed")


def read(sock: socket.socket, *, tag: int = 0) -> Ici:
    """Read the endpoint *sock*, which is isolated already, and leave it in repair mode.

    :param sock: TCP socket in one of :data:`READABLE`; nothing arrives for it, nobody writes to it. Needs
        CAP_NET_ADMIN over the socket's network namespace.
    :param tag: goes into the ICI.
    :return: the ICI: sequence numbers mod 2**32, queues as bytes, times in timestamp ticks.
    :raises Unsupported: as :func:`inspect`, or urgent data among what is queued; the socket is as before.
    :raises PermissionDenied: no CAP_NET_ADMIN; the socket is as before.
    :raises KernelError: the socket is as before; if undoing failed too, a note says how.

    The timestamp. TCP_TIMESTAMP returns the clock with bit 0 replaced by the unit. With ms, the true clock
    was v or v + 1, and a segment may have been sent with v + 1, so the next one may carry v + 2 at the
    earliest that has bit 0 clear again. With us, v has bit 0 set and is not below the true clock. The new
    endpoint's clock goes on from there: it never goes back, which the peer's PAWS check demands (RFC 7323
    section 5.3), and it does not count the time between. That keeps the gap out of round-trip times: the
    kernel takes a sample from the difference between its clock and the timestamp that the peer echoes
    (net/ipv4/tcp_input.c tcp_rtt_tsopt_us(), tcp_ack_update_rtt()), and the echo of a segment sent before
    the gap would else count the whole gap. RFC 7323 section 5.4 asks for a clock at least proportional to
    real time; seen over one pause this one is slow by the pause, far from the limit that PAWS sets.

    Source: paper section 2 steps 1 to 4; net/ipv4/tcp.c do_tcp_getsockopt(); CRIU's soccr.c for the calls.
    """
    # Not all of inspect(): the other obstacles show below.
    _check_protocols(sock)
    options = socket_options.read_all(sock, ipv6_only=_sends_ipv6(sock), connected=True)
    enter_repair(sock, options.get("SO_REUSEADDR", 0))
    try:
        return _read(sock, options, tag)
    except BaseException as exc:
        _undo(sock, exc)
        raise


def enter_repair(sock: socket.socket, reuse: int) -> None:
    """Repair mode on, remembering SO_REUSEADDR for :func:`leave_repair`."""
    try:
        tcp_repair.set_repair(sock, tcp_repair.ON)
    except KernelError as exc:
        if exc.errno == errno.EPERM:
            raise PermissionDenied(f"{exc}; it needs CAP_NET_ADMIN in the socket's user namespace") from exc
        raise
    reuse_before[sock] = reuse


def leave_repair(sock: socket.socket, mode: int) -> None:
    """Repair mode off by *mode*, then SO_REUSEADDR as it was before."""
    tcp_repair.set_repair(sock, mode)
    if reuse_before.pop(sock, 0):
        tcp_repair.set_int(sock, socket.SOL_SOCKET, _TCP_REUSE, 1, "SO_REUSEADDR")


def _undo(sock: socket.socket, error: BaseException) -> None:
    try:
        leave_repair(sock, tcp_repair.OFF_NO_PROBE)
    except TcpcpError as exc:
        error.add_note(f"and the socket could not be taken out of repair mode: {exc}")


def _read(sock: socket.socket, options: dict[str, int], tag: int) -> Ici:
    info = tcp_repair.get_info(sock)
    _check_state(sock, info.state)
    state = _STATES[info.state]
    window = tcp_repair.get_window(sock)
    snd_nxt, send_queue = _read_send_queue(sock, state)
    # Last, so that the receive queue stays selected: position() then needs two calls instead of four.
    rcv_nxt, receive_queue = _read_receive_queue(sock, state, "SO_OOBINLINE" in options)
    mss_clamp = tcp_repair.get_mss_clamp(sock)
    return Ici(
        state,
        _endpoint(sock.getsockname()),
        _endpoint(sock.getpeername()),
        _negotiated(info.options, info.snd_wscale, info.rcv_wscale, mss_clamp, info.advmss),
        snd_nxt,
        rcv_nxt,
        window,
        Congestion(tcp_repair.get_congestion(sock), info.snd_cwnd, info.snd_ssthresh, info.rtt, info.rttvar),
        _timestamp(sock) if info.options & tcp_repair.HAS_TIMESTAMPS else None,
        send_queue,
        receive_queue,
        options,
        sock.family == socket.AF_INET6,
        _device(sock),
        tag,
    )


def _read_send_queue(sock: socket.socket, state: State) -> tuple[int, SendQueue]:
    """``snd_nxt`` and the send queue; the FIN is taken out of the kernel's count of bytes."""
    tcp_repair.select_queue(sock, SEND_QUEUE)
    write_seq = tcp_repair.get_queue_seq(sock)
    outstanding = tcp_repair.get_outq(sock)
    if not outstanding:
        fin = state is State.FIN_WAIT2
        return write_seq, SendQueue(fin=True) if fin else _NO_SEND
    unsent = tcp_repair.get_outq_nsd(sock)
    snd_nxt = seq.add(write_seq, -unsent)
    fin = state in FIN_UNACKED
    fin_sent = fin and not unsent
    data = _peek_send_queue(sock, outstanding - fin)
    sent_bytes = outstanding - unsent - fin_sent
    return snd_nxt, SendQueue(data[:sent_bytes], data[sent_bytes:], fin, fin_sent)


def _peek_send_queue(sock: socket.socket, size_bytes: int) -> bytes:
    if not size_bytes:
        return b""
    data = tcp_repair.peek(sock, size_bytes + 1)
    if len(data) > size_bytes:
        # The peer acknowledged a part of the first segment; the kernel keeps, and returns, all of it.
        data = tcp_repair.peek(sock, len(data))[-size_bytes:]
    if len(data) < size_bytes:
        raise Unsupported(f"{_name(sock)}: of {size_bytes} bytes to send only {len(data)} can be read")
    return data


def _read_receive_queue(sock: socket.socket, state: State, inline: bool) -> tuple[int, ReceiveQueue]:
    """``rcv_nxt`` and the receive queue.

    With SO_OOBINLINE the kernel counts to ``rcv_nxt``; without, to an urgent mark, where the peek stops too
    and everything behind would be lost unseen. So count with it, and see whether the peek gets that far.
    """
    tcp_repair.select_queue(sock, RECV_QUEUE)
    rcv_nxt = tcp_repair.get_queue_seq(sock)
    if not inline:
        tcp_repair.set_int(sock, socket.SOL_SOCKET, _TCP_OOBINLINE, 1, "SO_OOBINLINE")
    try:
        waiting = tcp_repair.get_inq(sock)
        data = tcp_repair.peek(sock, waiting) if waiting else b""
    finally:
        if not inline:
            tcp_repair.set_int(sock, socket.SOL_SOCKET, _TCP_OOBINLINE, 0, "SO_OOBINLINE")
    if len(data) != waiting:
        raise Unsupported(
            f"{_name(sock)}: of {waiting} bytes in the receive queue only {len(data)} can be read: "
            "there is urgent data among them"
        )
    fin = state in FIN_IN
    return rcv_nxt, ReceiveQueue(data, fin) if fin or data else _NO_RECEIVE


def _timestamp(sock: socket.socket) -> Timestamp:
    value = tcp_repair.get_timestamp(sock)
    if value & 1:
        return Timestamp(value, microseconds=True)
    return Timestamp(seq.add(value, 2))


@lru_cache(1024)
def _negotiated(options: int, snd_wscale: int, rcv_wscale: int, mss_clamp: int, advmss: int) -> Negotiated:
    return Negotiated(
        bool(options & tcp_repair.HAS_TIMESTAMPS),
        bool(options & tcp_repair.HAS_SACK),
        bool(options & tcp_repair.HAS_WSCALE),
        bool(options & tcp_repair.HAS_ECN),
        snd_wscale,
        rcv_wscale,
        mss_clamp,
        advmss,
    )


def _device(sock: socket.socket) -> str:
    raw = tcp_repair.get_bytes(sock, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16, "SO_BINDTODEVICE")
    return raw.split(b"\0", 1)[0].decode()


@lru_cache(65536)
def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address written as *text* by the kernel; an IPv4-mapped one as IPv4."""
    if ":" not in text:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    ip = ipaddress.IPv6Address(text.split("%", 1)[0])
    return ip.ipv4_mapped or ip


@lru_cache(65536)
def _endpoint_of(host: str, port: int) -> Endpoint:
    return Endpoint(address(host), port)


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    return _endpoint_of(name[0], name[1])


def _sends_ipv6(sock: socket.socket) -> bool:
    """Whether IPv6 packets are sent."""
    return sock.family == socket.AF_INET6 and address(sock.getsockname()[0]).version == 6


def position(sock: socket.socket) -> tuple[int, int]:
    """What a packet that arrives would move: ``rcv_nxt`` and the bytes not acknowledged.

    :param sock: as :func:`read` left it, with the receive queue selected.
    """
    return tcp_repair.get_queue_seq(sock), tcp_repair.get_outq(sock)


def _has_moved(sock: socket.socket, ici: Ici) -> bool:
    fin_in_queue = ici.state in FIN_UNACKED
    outstanding = len(ici.send_queue.sent) + len(ici.send_queue.unsent) + fin_in_queue
    return position(sock) != (ici.rcv_nxt, outstanding)


def read_many(socks: Iterable[socket.socket | tuple[int, socket.socket]]) -> list[Ici]:
    """Read several endpoints, as :func:`read` each, and make sure that none has moved since.

    A packet that was past the filter's hook, on another processor, when the filter came into force may
    arrive after the socket was read. So each is looked at again after all were read, and read again if its
    ``rcv_nxt`` or ``snd_una`` is another.

    :param socks: sockets, or pairs of tag and socket; all isolated.
    :return: the ICIs in the same order.
    :raises Unsupported: one of them cannot be passed, or still moves after :data:`MAX_READS` readings: it is
        not isolated.
    :raises KernelError: of one of them. After any error all sockets are as before.
    """
    pairs = [entry if isinstance(entry, tuple) else (0, entry) for entry in socks]
    icis: list[Ici] = []
    try:
        for tag, sock in pairs:
            icis.append(read(sock, tag=tag))
        _settle([sock for _, sock in pairs], icis)
    except BaseException as exc:
        for _, sock in pairs[: len(icis)]:
            _undo(sock, exc)
        raise
    return icis


def _settle(socks: Sequence[socket.socket], icis: list[Ici]) -> None:
    """Read again what has moved, until nothing has."""
    for _ in range(MAX_READS):
        moved = [i for i, sock in enumerate(socks) if _has_moved(sock, icis[i])]
        if not moved:
            return
        for i in moved:
            icis[i] = _read(socks[i], icis[i].options, icis[i].tag)
    raise Unsupported(f"{icis[moved[0]]}: still receives; is it isolated?")
