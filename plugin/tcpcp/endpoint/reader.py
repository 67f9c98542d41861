"""From a live socket to an ICI: whether it can be passed, and what it holds. The recipe is in `calls`.

In two stages, so that little is left to be done while the connection stands still: :func:`prepare` reads what
only the application changes, :func:`read` the rest, once the connection is isolated.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from tcpcp.endpoint import queues, repair_mode, socket_options, unsent
from tcpcp.endpoint.inspection import check_no_error, check_state
from tcpcp.endpoint.preparation import Prepared, prepare, prepare_many
from tcpcp.endpoint.queues import FIN_UNACKED, MAX_READS, NO_RECEIVE, NO_SEND
from tcpcp.errors import Unsupported
from tcpcp.kernel import fields as kernel_fields
from tcpcp.kernel import tcp_repair
from tcpcp.kernel.fields import Numbers
from tcpcp.kernel.tcp_repair import Info
from tcpcp.record import seq
from tcpcp.record.ici import (
    Congestion,
    Ici,
    Negotiated,
    ReceiveQueue,
    SendQueue,
    State,
    Timestamp,
    Window,
)

#: TCP_ECN_MODE_ACCECN (include/net/tcp.h): TCP_INFO says of it what it says of classic ECN (RFC 3168).
ACCURATE_ECN = 1 << 4

#: From when on the peer's last timestamp is old, s: by so much the time in which PAWS is wrong may be longer.
_OLD_S = 60
_STATES = {int(state): state for state in State}
#: Ticks of the two timestamp clocks, ns.
_US, _MS = 1000, 1_000_000
#: Of a second.
_NS = 1_000_000_000


def read(
    sock: socket.socket,
    *,
    tag: int = 0,
    prepared: Prepared | None = None,
    ts_recent: int | None = None,
) -> Ici:
    """Read the endpoint *sock*, which is isolated already, and leave it in repair mode.

    :param sock: TCP socket in one of :data:`READABLE`; nothing arrives for it, nobody writes to it. Needs
        CAP_NET_ADMIN over the socket's network namespace.
    :param tag: goes into the ICI.
    :param prepared: what :func:`prepare` has read of it before, if it has.
    :param ts_recent: from :func:`tcpcp.kernel.fields.read`, since it is isolated.
    :return: the ICI: sequence numbers mod 2**32, queues as bytes, times in timestamp ticks.
    :raises Unsupported: as :func:`inspect`, or urgent data among what is queued; the socket is as before.
    :raises PermissionDenied: no CAP_NET_ADMIN; the socket is as before.
    :raises KernelError: the socket is as before; if undoing failed too, a note says how.

    Source: paper section 2 steps 1 to 4; net/ipv4/tcp.c do_tcp_getsockopt(); CRIU's soccr.c for the calls.
    """
    known = prepared or prepare(sock)
    repair_mode.enter_repair(sock, known.options.get("SO_REUSEADDR", 0))
    try:
        with unsent.kept([sock], [None]) as (window,):
            return _read(sock, known, tag, ts_recent, window=window)
    except BaseException as exc:
        _undo(sock, exc)
        raise


def _undo(sock: socket.socket, error: BaseException) -> None:
    with repair_mode.noting(error):
        repair_mode.leave_repair(sock, tcp_repair.OFF_NO_PROBE)


def read_again(
    sock: socket.socket, ici: Ici, numbers: Numbers | None = None, sent_until: int | None = None
) -> Ici:
    """*sock*, which is in repair mode still, as it is now; *ici* is what was read of it before.

    :param numbers: of it as it is now, if they are known. :param sent_until: as for :func:`_read`.
    """
    known = Prepared(
        ici.local,
        ici.peer,
        ici.state is State.CLOSE,
        ici.options,
        ici.congestion.algorithm,
        ici.device,
        ici.socket_filter,
        ici.ipv6_socket,
        shut=ici.receive_queue.shut,
    )
    recent = ici.timestamp.ts_recent if ici.timestamp else None
    with unsent.kept([sock], [None]) as (window,):
        return _read(sock, known, ici.tag, recent, numbers, window, sent_until)


def _read(
    sock: socket.socket,
    known: Prepared,
    tag: int,
    ts_recent: int | None,
    numbers: Numbers | None = None,
    window: Window | None = None,
    sent_until: int | None = None,
) -> Ici:
    """Leaves no queue selected: whoever writes to the socket meanwhile gets an error (tcp_sendmsg_locked()).

    :param window: from :func:`tcpcp.endpoint.unsent.kept`; numbers and sent_until are for `queues`.
    """
    window = window or tcp_repair.get_window(sock)
    info, snd_nxt, send_queue = _outgoing(sock, known, numbers, sent_until)
    state = _STATES[info.state]
    rcv_nxt, receive_queue = queues.read_receive_queue(sock, state, known, numbers)
    mss_clamp = tcp_repair.get_mss_clamp(sock)
    return Ici(
        state,
        known.local,
        known.peer,
        _negotiated(info.options, info.snd_wscale, info.rcv_wscale, mss_clamp, info.advmss),
        snd_nxt,
        rcv_nxt,
        window,
        Congestion(known.algorithm, info.snd_cwnd, info.snd_ssthresh, info.rtt, info.rttvar),
        _timestamp(sock, ts_recent, _ahead_ns(numbers)) if info.options & tcp_repair.HAS_TIMESTAMPS else None,
        send_queue,
        receive_queue,
        socket_options.read_tuned(sock, known.options),
        known.ipv6_socket,
        known.device,
        tag,
        socket_filter=known.socket_filter,
    )


def _outgoing(
    sock: socket.socket, known: Prepared, numbers: Numbers | None, sent_until: int | None
) -> tuple[Info, int, SendQueue]:
    """What is to be sent, and what the state was then: a thread may shut the socket in between, once."""
    for _ in range(MAX_READS):
        info = tcp_repair.get_info(sock)
        check_state(sock, info.state)
        state = _STATES[info.state]
        if state is State.CLOSE and not known.closed:
            break
        with contextlib.suppress(queues.ShutMeanwhile):
            return info, *queues.read_send_queue(sock, state, numbers, sent_until)
    raise Unsupported(f"{tcp_repair.describe(sock)}: its connection has ended in this moment")


def _timestamp(sock: socket.socket, ts_recent: int | None = None, ahead_ns: int = 0) -> Timestamp:
    """The smallest value that the next segment may carry.

    TCP_TIMESTAMP returns the clock with bit 0 replaced by the unit. With ms, the true clock was v or v + 1, and
    a segment may have been sent with v + 1, so the next one may carry v + 2 at the earliest that has bit 0 clear
    again. With us, v has bit 0 set and is not below the true clock. The new endpoint's clock goes on from there:
    it never goes back, which the peer's PAWS check demands (RFC 7323 section 5.3), and it does not count the time
    between. That keeps the gap out of round-trip times: the kernel takes a sample from the difference between its
    clock and the timestamp that the peer echoes (net/ipv4/tcp_input.c tcp_rtt_tsopt_us(), tcp_ack_update_rtt()),
    and the echo of a segment sent before the gap would else count the whole gap. RFC 7323 section 5.4 asks for a
    clock at least proportional to real time; seen over one pause this one is slow by the pause, far from the limit
    that PAWS sets.

    A paced connection (BBR, SO_MAX_PACING_RATE) is ahead of its clock: what it sends carries the time at which
    the next segment may leave, seconds from now where little may be sent in one (net/ipv4/tcp_output.c
    tcp_update_skb_after_send(), __tcp_transmit_skb()). The new endpoint's clock begins there.
    """
    value = tcp_repair.get_timestamp(sock)
    if value & 1:
        return Timestamp(seq.add(value, _even(ahead_ns, _US)), True, ts_recent)
    return Timestamp(seq.add(value, 2 + _even(ahead_ns, _MS)), False, ts_recent)


def _recent(numbers: Numbers) -> int | None:
    """The peer's last timestamp; None where it came so long ago that it is as good as not known.

    The new endpoint takes it for one that has just come (tcp_store_ts_recent()). A peer whose clock has gone on by
    more than half of its numbers meanwhile, in 36 minutes where a tick is 1 us, looks to PAWS as if it had gone
    back: what it sends is dropped. The kernel itself lets that pass when it has heard nothing for as long
    (tcp_paws_check()), but begins to count now. 0, which it echoes else, is neither compared nor timed by a peer.
    """
    return numbers.ts_recent if numbers.now_ns // _NS - numbers.recent_stamp < _OLD_S else None


def _even(time_ns: int, tick_ns: int) -> int:
    """*time_ns* in ticks, rounded up to an even number of them: bit 0 is the unit."""
    return 2 * -(-time_ns // (2 * tick_ns))


def _ahead_ns(numbers: Numbers | None) -> int:
    """By how much the timestamps that were sent may be ahead of the clock, ns."""
    return max(numbers.wstamp_ns - numbers.clock_ns, 0) if numbers else 0


@lru_cache(1024)
def _negotiated(options: int, snd_wscale: int, rcv_wscale: int, mss_clamp: int, advmss: int) -> Negotiated:
    return Negotiated(
        bool(options & tcp_repair.HAS_TIMESTAMPS),
        bool(options & tcp_repair.HAS_SACK),
        # Negotiated with both shifts 0 is as good as not negotiated, and cannot be told apart afterwards.
        bool(options & tcp_repair.HAS_WSCALE and snd_wscale | rcv_wscale),
        bool(options & tcp_repair.HAS_ECN),
        snd_wscale,
        rcv_wscale,
        mss_clamp,
        advmss,
    )


class Left(NamedTuple):
    """What waits in the queues of a socket, in bytes; a call of its program's moves it.

    :ivar outgoing: not acknowledged, our FIN among it. :ivar incoming: not read, without the peer's FIN.
    """

    outgoing: int
    incoming: int


def left_in(ici: Ici) -> Left:
    """What the socket has left that *ici* was read from, for as long as nothing moves it."""
    queue = ici.send_queue
    outgoing = len(queue.sent) + len(queue.unsent) + (ici.state in FIN_UNACKED)
    return Left(outgoing, len(ici.receive_queue.data))


def left(sock: socket.socket) -> Left:
    """What *sock* has left now; waits for who has its lock."""
    return Left(tcp_repair.get_outq(sock), tcp_repair.get_inq(sock))


def position(sock: socket.socket) -> tuple[int, Left]:
    """What a packet that arrives would move, ``rcv_nxt`` and what is not acknowledged, and what a call would."""
    return repair_mode.received(sock), left(sock)


def _position_in(numbers: Numbers, fin: int) -> tuple[int, Left]:
    """As :func:`position`; *fin*: 1 where the peer's has arrived, which counts until it is read (tcp_inq())."""
    incoming = numbers.rcv_nxt - numbers.copied_seq & seq.MASK
    return numbers.rcv_nxt, Left(numbers.write_seq - numbers.snd_una & seq.MASK, max(incoming - fin, 0))


def _has_moved(sock: socket.socket, ici: Ici, numbers: Numbers | None) -> bool:
    if ici.state is State.CLOSE:
        return left(sock) != left_in(ici)
    now = _position_in(numbers, ici.receive_queue.fin) if numbers else position(sock)
    return now != (ici.rcv_nxt, left_in(ici))


def read_many(
    socks: Iterable[socket.socket | tuple[int, socket.socket]], prepared: Sequence[Prepared] | None = None
) -> list[Ici]:
    """Read several endpoints, as :func:`read` each, and make sure that none has moved since.

    A packet that was past the filter's hook, on another processor, when the filter came into force may arrive
    after the socket was read. And recv() and send() look at repair mode when they begin only (net/ipv4/tcp.c
    tcp_recvmsg_locked(), tcp_sendmsg_locked()): a thread that slept in one of them, and was woken by the last
    packet before the isolation, goes on as soon as it gets a processor. So each is looked at again after all were
    read, and read again if its ``rcv_nxt``, ``snd_una``, ``copied_seq`` or ``write_seq`` is another.

    :param socks: sockets, or pairs of tag and socket; all isolated.
    :param prepared: what :func:`prepare` has read of each.
    :return: the ICIs in the same order.
    :raises Unsupported: one of them cannot be passed, or still moves after :data:`MAX_READS` readings: it is
        not isolated.
    :raises KernelError: of one of them. After any error all sockets are as before.
    """
    pairs = [entry if isinstance(entry, tuple) else (0, entry) for entry in socks]
    plain = [sock for _, sock in pairs]
    entered: list[socket.socket] = []
    try:
        known = prepared or prepare_many(plain)
        for sock, one in zip(plain, known, strict=True):
            repair_mode.enter_repair(sock, one.options.get("SO_REUSEADDR", 0))
            entered.append(sock)
        icis = _read_all(pairs, known)
        _settle(plain, icis)
        check_no_error(plain)
    except BaseException as exc:
        for sock in entered:
            _undo(sock, exc)
        raise
    return icis


def _read_all(pairs: Sequence[tuple[int, socket.socket]], known: Sequence[Prepared]) -> list[Ici]:
    socks = [sock for _, sock in pairs]
    numbers = kernel_fields.numbers(socks)
    with unsent.kept(socks, numbers) as windows:
        if any(numbers):
            return [
                _reading.read(sock, one, tag, of_kernel, window)
                for (tag, sock), one, of_kernel, window in zip(pairs, known, numbers, windows, strict=True)
            ]
        fields = kernel_fields.read(socks)
        return [
            _read(sock, one, tag, of_kernel.ts_recent, window=window)
            for (tag, sock), one, of_kernel, window in zip(pairs, known, fields, windows, strict=True)
        ]


class _Reading:
    """Reads sockets in repair mode; where all is quiet from the kernel's numbers alone, without asking.

    Of those that agreed on the same with their peers the first one in this process is asked all the same: so
    what they agreed on is known of the others, and the numbers are compared with what it says.
    """

    def __init__(self) -> None:
        self._agreed: dict[bytes, Negotiated] = {}
        self._trusted = True

    def read(
        self, sock: socket.socket, known: Prepared, tag: int, numbers: Numbers | None, window: Window | None
    ) -> Ici:
        if numbers is None or not self._trusted or not _is_quiet(numbers):
            return _read(sock, known, tag, numbers and _recent(numbers), numbers, window)
        agreed = self._agreed.get(numbers.agreed)
        if agreed is not None:
            return _read_quiet(sock, known, tag, numbers, agreed)
        ici = _read(sock, known, tag, _recent(numbers))
        again = _read_quiet(sock, known, tag, numbers, ici.negotiated)
        self._trusted = replace(again, timestamp=ici.timestamp) == ici
        if len(self._agreed) >= _MOST_AGREED:
            self._agreed.clear()
        self._agreed[numbers.agreed] = ici.negotiated
        return replace(ici, timestamp=again.timestamp)  # which a paced one is ahead of


#: Segment sizes, shifts and the like that a process meets are few.
_MOST_AGREED = 1024
_reading = _Reading()


def _is_quiet(numbers: Numbers) -> bool:
    """Both queues are empty, and neither side has closed."""
    return (
        numbers.state == State.ESTABLISHED
        and numbers.write_seq == numbers.snd_una
        and numbers.rcv_nxt == numbers.copied_seq
        and not numbers.urgent
    )


def _read_quiet(sock: socket.socket, known: Prepared, tag: int, numbers: Numbers, agreed: Negotiated) -> Ici:
    """As :func:`_read`; in repair mode no queue is selected at first."""
    n = numbers
    return Ici(
        State.ESTABLISHED,
        known.local,
        known.peer,
        agreed,
        n.write_seq,
        n.rcv_nxt,
        Window(n.snd_wl1, n.snd_wnd, n.max_window, n.rcv_wnd, n.rcv_wup),
        Congestion(known.algorithm, n.snd_cwnd, n.snd_ssthresh, n.srtt_us >> 3, n.mdev_us >> 2),
        _timestamp(sock, _recent(n), _ahead_ns(n)) if agreed.timestamps else None,
        NO_SEND,
        ReceiveQueue(shut=True) if known.shut else NO_RECEIVE,
        socket_options.tuned(known.options, n.sndbuf, n.rcvbuf, n.window_clamp),
        known.ipv6_socket,
        known.device,
        tag,
        socket_filter=known.socket_filter,
    )


def _settle(socks: Sequence[socket.socket], icis: list[Ici]) -> None:
    """Read again what has moved, until nothing has.

    Where something waits to be read, or to be sent, a thread may be about to go on with it: that comes first.
    """
    if any(ici.receive_queue.data or ici.send_queue.unsent for ici in icis):
        os.sched_yield()
    for _ in range(MAX_READS):
        looks = kernel_fields.numbers(socks)
        moved = [i for i, sock in enumerate(socks) if _has_moved(sock, icis[i], looks[i])]
        if not moved:
            _check_numbers(icis, looks)
            icis[:] = map(_with_recent, icis, looks)
            return
        for i in moved:
            icis[i] = read_again(socks[i], icis[i], looks[i], icis[i].snd_nxt)
    raise Unsupported(f"{icis[moved[0]]}: still receives; is it isolated?")


def _with_recent(ici: Ici, numbers: Numbers | None) -> Ici:
    """*ici* with the timestamp of what came last, which may have moved nothing: it has been answered."""
    stamp = ici.timestamp
    if numbers is None or stamp is None or (recent := _recent(numbers)) == stamp.ts_recent:
        return ici
    return replace(ici, timestamp=replace(stamp, ts_recent=recent))


def _check_numbers(icis: Sequence[Ici], looks: Sequence[Numbers | None]) -> None:
    """What no call tells of: a byte written with MSG_OOB, and that ECN is accurate ECN.

    Where BPF is not permitted, the one goes as an ordinary byte, and the other is taken for classic ECN.
    """
    for ici, numbers in zip(icis, looks, strict=True):
        if numbers and numbers.ecn_flags & ACCURATE_ECN:
            raise Unsupported(
                f"{ici}: accurate ECN (AccECN): both ends count marks in each segment, and no call reads or sets "
                "the counts; net.ipv4.tcp_ecn 0 to 2 does without"
            )
        if numbers and numbers.snd_up != numbers.snd_una != numbers.write_seq:
            raise Unsupported(f"{ici}: urgent data waits to be acknowledged; try again when it has been")
