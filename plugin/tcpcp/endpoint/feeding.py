"""Segments of the peer that are fed to our own stack, for what no call can set, and waited for."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from tcpcp.endpoint import filling, raw_segment, socket_ends
from tcpcp.endpoint import same_path as same_path_
from tcpcp.errors import Unfed
from tcpcp.kernel import tcp_repair
from tcpcp.kernel.tcp_repair import NO_QUEUE, SEND_QUEUE
from tcpcp.record import seq
from tcpcp.record.ici import FIN_ACKED, FIN_IN, Endpoint, Ici, State

#: How long a segment fed to our own stack may take to arrive.
FEED_DEADLINE_S = 2.0


def feeds(ici: Ici) -> bool:
    """Whether *ici* cannot be built without CAP_NET_RAW: its state is reached only by a segment that arrives."""
    return ici.state in FIN_IN | FIN_ACKED


def is_deaf(ici: Ici) -> bool:
    """What is fed arrives by the loopback interface, where a socket bound to another one does not hear it."""
    return bool(ici.device) and not ici.local.is_link_local


def is_to_be_fed(ici: Ici) -> bool:
    """Whether what the peer has said last has to be fed, for its timestamp or its window."""
    return (ici.timestamp is not None and ici.timestamp.ts_recent is not None) or window_field(ici) > 0


def window_field(ici: Ici) -> int:
    """How the peer tells the window that it has told, where the kernel predicts what it tells next, else 0.

    A segment with the window that was predicted is not looked at for its window (net/ipv4/tcp_input.c
    tcp_rcv_established(), tcp_ack()). connect() predicts 0, and TCP_REPAIR_WINDOW leaves it at that: the first
    segment that shuts the window would be overlooked, and we would send beyond it. What opens a window predicts
    anew (tcp_ack_update_window()), so that is what is fed: where the window is 0 already, 0 is right.
    """
    if ici.state is not State.ESTABLISHED:  # in the others each segment is looked at
        return 0
    return ici.window.told(ici.negotiated.snd_wscale)


def teach_rtt(sock: socket.socket, ici: Ici) -> None:
    """The round-trip time of *ici*: the peer acknowledges a byte, or two, before all others, sent only here."""
    tcp_repair.select_queue(sock, SEND_QUEUE)
    number = same_path_.bytes_to_teach(ici)
    for _ in range(number):  # each is a segment of its own
        filling.write(sock, b"\0", "send(one byte to time)")
    tcp_repair.select_queue(sock, NO_QUEUE)
    teach_rtt_by(sock, ici, number, ici.copied_seq)


def teach_rtt_by(sock: socket.socket, ici: Ici, more: int, number: int) -> None:
    """The round-trip time of *ici*, by the first *more* bytes of the send queue, which are not the connection's.

    :param sock: in repair mode; these bytes are put in as sent. For each of
        :func:`tcpcp.endpoint.same_path.bytes_to_teach` there is one, alone in its buffer, or a segment.
    :param number: ``rcv_nxt`` now.
    """
    with same_path_.samples(sock, ici) as samples:
        size = more // len(samples)
        for left, rtt_us in zip(reversed(range(len(samples))), samples, strict=True):
            ack = seq.add(first_to_send(ici), -left * size)
            same_path_.teach_rtt(sock, ici, number, ack, window_field(ici), rtt_us)


def feed_last(sock: socket.socket, ici: Ici, local: Endpoint, number: int, ack: int, before: int) -> None:
    """Let the kernel see the peer's timestamp, so that the first segment sent echoes it and not 0, and its window.

    :param number: ``rcv_nxt`` now; :param ack: ``snd_una``. The send window is 0.
    :param before: how many segments have arrived for *sock* so far; of no use where a window is told.
    """
    stamp, window, stamps = ici.timestamp, window_field(ici), None
    if stamp is not None and stamp.ts_recent is not None:
        stamps = stamp.ts_recent, stamp.value
    _feed_segment(local, ici, raw_segment.ACK, number, ack, stamps, window)

    def arrived() -> bool:
        if window:
            return tcp_repair.get_send_window(sock) > 0
        return tcp_repair.get_segments_in(sock) != before

    _wait(arrived, ici, same_path_.FEED_DEADLINE_S)


def first_to_send(ici: Ici) -> int:
    """Where the peer has acknowledged our FIN, snd_una is behind it, and it has to be put in again."""
    return seq.add(ici.snd_una, -(ici.state in FIN_ACKED))


def feed(sock: socket.socket, ici: Ici, flags: int, number: int, ack: int, expected: State) -> None:
    """Feed a segment from the peer and wait until *sock* is in the state that it leads to.

    Its window field is 0, so that it opens no window; ours is opened to take it.
    """
    tcp_repair.select_queue(sock, NO_QUEUE)
    open_window(sock, ici, number)
    _feed_segment(socket_ends.local_end(sock), ici, flags, number, ack)
    _wait(lambda: tcp_repair.get_state(sock) == expected, ici)


def open_window(sock: socket.socket, ici: Ici, number: int) -> None:
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
    raw_segment.feed(packet, local, feeding_device(ici, local))


def feeding_device(ici: Ici, local: Endpoint) -> str:
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
