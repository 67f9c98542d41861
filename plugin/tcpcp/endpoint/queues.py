"""Both queues of a live socket, read with as little as possible of what other threads that use it would notice.

What a queue that is selected in repair mode does to who uses the socket meanwhile (net/ipv4/tcp.c
tcp_sendmsg_locked(), tcp_recvmsg_locked()):

- The receive queue: what is written is put into it, as if the peer had sent it, and ``rcv_nxt`` is ahead of the
  peer for ever. So it is never selected. Its bytes are peeked at outside of repair mode, for a moment; what
  arrives meanwhile is isolated, and whether the program has read meanwhile is seen afterwards. ``rcv_nxt`` is told
  by BPF, or by what TCP_REPAIR_WINDOW takes, :func:`tcpcp.endpoint.repair_mode.received_by_trial`.
- The send queue: what is written counts as sent, and all that waited before it too, and nothing is sent; and who
  peeks (MSG_PEEK) is given what is to be sent as if the peer had sent it. No other call reads that queue. So it is
  selected only where it holds something, or nobody else tells ``write_seq``, and by
  :func:`tcpcp.kernel.peeking.send_queue`, in which another thread of a Python program is seldom let run. One that
  is on its way into the kernel just then, or another process, is not kept from it: what that has written is found,
  what it has peeked at is not. What was sent since the connection was isolated, as the kernel says, has not left
  this host: the ICI has it as unsent.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tcpcp.endpoint import repair_mode
from tcpcp.endpoint.preparation import Prepared
from tcpcp.errors import KernelError, Unsupported
from tcpcp.kernel import fields as kernel_fields
from tcpcp.kernel import peeking, tcp_repair
from tcpcp.kernel.fields import Numbers
from tcpcp.record import seq
from tcpcp.record.checks import MAX_QUEUE_BYTES
from tcpcp.record.ici import FIN_ACKED, FIN_IN, ReceiveQueue, SendQueue, State

#: States with our FIN among the bytes that the peer has not acknowledged.
FIN_UNACKED = frozenset({State.FIN_WAIT1, State.LAST_ACK, State.CLOSING})
#: How often a socket that keeps moving is read again before we give up.
MAX_READS = 5

NO_SEND = SendQueue()
NO_RECEIVE = ReceiveQueue()
_NUMBERS = {"SO_OOBINLINE": 10, "SO_PEEK_OFF": 42}
_USUAL = {"SO_OOBINLINE": 0, "SO_PEEK_OFF": -1}


def read_send_queue(
    sock: socket.socket, state: State, numbers: Numbers | None = None, sent_until: int | None = None
) -> tuple[int, SendQueue]:
    """``snd_nxt`` and the send queue of *sock*, which is in repair mode; our FIN is not among the bytes.

    :param numbers: of it, since it is isolated; None: only calls are asked.
    :param sent_until: ``snd_nxt`` at some time since it is isolated: what is behind has not left this host.
    :raises ShutMeanwhile: *state* is not its state any more.
    """
    if numbers and (state in FIN_ACKED or numbers.write_seq == numbers.snd_una):
        return numbers.write_seq, SendQueue(fin=True) if state in FIN_ACKED else NO_SEND
    if state in FIN_ACKED:
        return peeking.send_queue(sock, 0)[0], SendQueue(fin=True)
    fin = state in FIN_UNACKED
    found = _told(sock, numbers, fin) if numbers else _asked(sock, fin)
    snd_nxt = found.snd_nxt if sent_until is None else _earlier(found.snd_nxt, sent_until)
    if not found.outstanding:
        return snd_nxt, NO_SEND
    size = found.outstanding - fin
    if len(found.data) < size:
        if tcp_repair.get_state(sock) != state:
            raise ShutMeanwhile
        name = tcp_repair.describe(sock)
        raise Unsupported(f"{name}: of {size} bytes to send only {len(found.data)} can be read")
    sent = min(snd_nxt - found.snd_una & seq.MASK, found.outstanding)
    fin_sent = fin and sent == found.outstanding
    return snd_nxt, SendQueue(found.data[: sent - fin_sent], found.data[sent - fin_sent :], fin, fin_sent)


class ShutMeanwhile(Exception):
    """The program has shut the socket since its state was asked: the end of the stream is among what is to be sent.

    Repair mode does not keep it from that (net/ipv4/tcp.c tcp_shutdown()).
    """


class _Outgoing(NamedTuple):
    """:ivar outstanding: from ``snd_una`` to ``write_seq``; *data* is that without our FIN."""

    snd_una: int
    snd_nxt: int
    outstanding: int
    data: bytes


def _told(sock: socket.socket, numbers: Numbers, fin: bool) -> _Outgoing:
    """Where something is written meanwhile the data is another: who looks at ``write_seq`` later reads again."""
    outstanding = numbers.write_seq - numbers.snd_una & seq.MASK
    _require_room(sock, outstanding, "to send")
    _, data = peeking.send_queue(sock, outstanding - fin)
    return _Outgoing(numbers.snd_una, numbers.snd_nxt, outstanding, data)


def _asked(sock: socket.socket, fin: bool) -> _Outgoing:
    """What was sent is asked before the queue is selected, in which more may come to count as sent."""
    now, sent = _left_to_send(sock)
    for _ in range(MAX_READS):
        _require_room(sock, now, "to send")
        write_seq, data = peeking.send_queue(sock, max(now - fin, 0))
        outstanding, now = now, tcp_repair.get_outq(sock)
        if now == outstanding:
            snd_una = seq.add(write_seq, -outstanding)
            return _Outgoing(snd_una, seq.add(snd_una, sent), outstanding, data)
    raise _written_to(sock)


def _left_to_send(sock: socket.socket) -> tuple[int, int]:
    """What is outstanding, and how much of that was sent, both of one moment: what is written between the two calls
    would else be taken for unsent bytes more, and as many that were sent for unsent ones."""
    for _ in range(MAX_READS):
        outstanding = tcp_repair.get_outq(sock)
        if not outstanding:
            return 0, 0
        unsent = tcp_repair.get_outq_nsd(sock)
        if tcp_repair.get_outq(sock) == outstanding:
            return outstanding, max(outstanding - unsent, 0)
    raise _written_to(sock)


def _written_to(sock: socket.socket) -> Unsupported:
    return Unsupported(f"{tcp_repair.describe(sock)}: is written to all the time; try again")


def _earlier(one: int, other: int) -> int:
    """Of two sequence numbers of one window."""
    return other if one - other & seq.MASK < 1 << 31 else one


def _require_room(sock: socket.socket, size_bytes: int, what: str) -> None:
    """Refuse here what `create` would, before it is copied."""
    if size_bytes > MAX_QUEUE_BYTES:
        raise Unsupported(
            f"{tcp_repair.describe(sock)}: {size_bytes} bytes wait {what}, an ICI holds {MAX_QUEUE_BYTES}; try "
            "again when there are fewer"
        )


class Incoming(NamedTuple):
    """:ivar waiting: bytes that have not been read, without the peer's FIN."""

    rcv_nxt: int
    waiting: int


def _incoming(sock: socket.socket, options: Mapping[str, int], numbers: Numbers | None) -> Incoming:
    """As BPF tells, or the calls.

    Without SO_OOBINLINE the kernel counts to an urgent mark only, and everything behind would be lost unseen.
    """
    if numbers and numbers.state != State.CLOSE:
        fin = numbers.state in FIN_IN
        return Incoming(numbers.rcv_nxt, max((numbers.rcv_nxt - numbers.copied_seq & seq.MASK) - fin, 0))
    rcv_nxt = numbers.rcv_nxt if numbers else repair_mode.received_by_trial(sock)
    with _otherwise(sock, "SO_OOBINLINE", 1, options):
        return Incoming(rcv_nxt, tcp_repair.get_inq(sock))


def read_receive_queue(
    sock: socket.socket, state: State, known: Prepared, numbers: Numbers | None = None
) -> tuple[int, ReceiveQueue]:
    """``rcv_nxt`` and the receive queue of *sock*, which is in repair mode, but for moments.

    :param numbers: of it, since it is isolated; None: only calls are asked.
    """
    now = _incoming(sock, known.options, numbers)
    for _ in range(MAX_READS):
        _require_room(sock, now.waiting, "to be read")
        data = _peeked(sock, known.options, now.waiting) if now.waiting else b""
        before = now
        if now.waiting:
            numbers = kernel_fields.numbers([sock])[0] if numbers else None
            now = _incoming(sock, known.options, numbers)
        if now == before:
            return now.rcv_nxt, _queue(sock, data, now.waiting, state, known)
    raise Unsupported(f"{tcp_repair.describe(sock)}: is read from all the time; try again")


def _queue(sock: socket.socket, data: bytes, waiting: int, state: State, known: Prepared) -> ReceiveQueue:
    if len(data) != waiting:
        raise Unsupported(
            f"{tcp_repair.describe(sock)}: of {waiting} bytes in the receive queue only {len(data)} can be "
            "read: there is urgent data among them"
        )
    fin = state in FIN_IN
    return ReceiveQueue(data, fin, known.shut) if fin or data or known.shut else NO_RECEIVE


def _peeked(sock: socket.socket, options: Mapping[str, int], size_bytes: int) -> bytes:
    """With SO_PEEK_OFF a peek begins somewhere else, and moves that."""
    with _otherwise(sock, "SO_PEEK_OFF", -1, options):
        repair_mode.leave_repair(sock, tcp_repair.OFF_NO_PROBE)
        try:
            return peeking.receive_queue(sock, size_bytes)
        finally:
            repair_mode.enter_repair(sock, options.get("SO_REUSEADDR", 0))


@contextlib.contextmanager
def _otherwise(sock: socket.socket, name: str, value: int, options: Mapping[str, int]) -> Iterator[None]:
    """An option is *value* meanwhile; set in repair mode with no queue selected, where no call makes use of it."""
    before = options.get(name, _USUAL[name])
    if before == value:
        yield
        return
    tcp_repair.set_int(sock, socket.SOL_SOCKET, _NUMBERS[name], value, name)
    try:
        yield
    except BaseException as exc:
        try:
            _put_back(sock, name, before, value)
        except KernelError as failed:
            exc.add_note(f"and {failed}; {failed.__notes__[0]}")
        raise
    _put_back(sock, name, before, value)


def _put_back(sock: socket.socket, name: str, before: int, value: int) -> None:
    try:
        tcp_repair.set_int(sock, socket.SOL_SOCKET, _NUMBERS[name], before, name)
    except KernelError as exc:
        exc.add_note(f"{name} of the socket is {value} now, and has to be set to {before}")
        raise
