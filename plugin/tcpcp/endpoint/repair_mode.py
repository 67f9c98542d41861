"""In and out of repair mode, with SO_REUSEADDR as it was; and the end of a connection that nobody hears of."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import replace

from tcpcp.errors import KernelError, PermissionDenied, TcpcpError
from tcpcp.kernel import fields, peeking, tcp_repair
from tcpcp.record import seq
from tcpcp.record.ici import Ici


def enter_repair(sock: socket.socket, reuse: int) -> None:
    """Repair mode on, and SO_REUSEADDR *reuse*, as it was before.

    Repair mode makes of it a mark that lets a socket be bound to any port, also one that another user listens
    on (SK_FORCE_REUSE); whoever else holds the socket must not find it there.
    """
    force_reuse(sock)
    try:
        tcp_repair.set_int(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse, "SO_REUSEADDR")
    except BaseException as exc:
        with noting(exc):
            tcp_repair.set_repair(sock, tcp_repair.OFF_NO_PROBE)
            tcp_repair.set_int(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse, "SO_REUSEADDR")
        raise


def force_reuse(sock: socket.socket) -> None:
    """Repair mode on, with the mark that lets *sock* be bound beside others."""
    try:
        tcp_repair.set_repair(sock, tcp_repair.ON)
    except KernelError as exc:
        if exc.errno == errno.EPERM:
            raise PermissionDenied(f"{exc}; it needs CAP_NET_ADMIN in the socket's user namespace") from exc
        raise


def acknowledged(sock: socket.socket) -> int:
    """``snd_una`` of *sock*, which is in repair mode; then no queue is selected.

    Where BPF tells no queue is selected meanwhile either: see `unsent`.
    """
    (numbers,) = fields.numbers([sock])
    if numbers:
        return numbers.snd_una
    write_seq, _ = peeking.send_queue(sock, 0)
    return seq.add(write_seq, -tcp_repair.get_outq(sock))


def received(sock: socket.socket) -> int:
    """``rcv_nxt`` of *sock*, which is in repair mode; no queue is selected for that: see `queues`."""
    (numbers,) = fields.numbers([sock])
    return numbers.rcv_nxt if numbers else received_by_trial(sock)


def received_by_trial(sock: socket.socket) -> int:
    """As :func:`received`, without BPF.

    The kernel refuses a ``rcv_wup`` that is after ``rcv_nxt``, and changes nothing then. Mostly these are the same,
    so that the first trial is the last: all that has been received was acknowledged.

    Source: net/ipv4/tcp.c tcp_repair_set_window().
    """
    window = tcp_repair.get_window(sock)
    first, distance = window.rcv_wup, 1

    def is_received(distance: int) -> bool:
        return tcp_repair.takes_window(sock, replace(window, rcv_wup=seq.add(first, distance)))

    if not is_received(distance):
        return first
    try:
        while is_received(2 * distance):
            distance *= 2
        step = distance
        while step := step // 2:
            distance += step * is_received(distance + step)
        return seq.add(first, distance)
    finally:
        tcp_repair.set_window(sock, replace(tcp_repair.get_window(sock), rcv_wup=first))


def leave_repair(sock: socket.socket, mode: int) -> None:
    """Repair mode off by *mode*, which clears SO_REUSEADDR; that is as it was."""
    reuse = tcp_repair.get_int(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR, "SO_REUSEADDR")
    tcp_repair.set_repair(sock, mode)
    if reuse != 1:
        return
    try:
        tcp_repair.set_int(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1, "SO_REUSEADDR")
    except KernelError:
        enter_repair(sock, 1)  # or it would be forgotten
        raise


@contextlib.contextmanager
def noting(error: BaseException) -> Iterator[None]:
    """What fails while *error* is being undone is a note of it."""
    try:
        yield
    except TcpcpError as exc:
        error.add_note(f"and the socket could not be taken out of repair mode: {exc}")


@contextlib.contextmanager
def outside_repair_mode(sock: socket.socket, ici: Ici) -> Iterator[None]:
    """A ``with`` block in which the kernel takes calls as always; after an error *sock* stays as it is there."""
    tcp_repair.set_repair(sock, tcp_repair.OFF_NO_PROBE)
    yield
    enter_repair(sock, ici.options.get("SO_REUSEADDR", 0))


def discard(sock: socket.socket, write_seq: int | None = None) -> int:
    """End the connection of *sock* without a packet, whatever it is in the middle of, and close it.

    It ends for all who hold the socket: another descriptor, another process, a thread that waits, which wakes. They
    have a socket out of repair mode, and without the mark that lets it be bound beside those of others.

    :param write_seq: of a connection that is got, as it was then; None: it does not matter.
    :return: by how much that is another at the end, what has been written since; 0 where that is not known.
    :raises KernelError: repair mode could not be entered; the socket is open still.
    """
    if not tcp_repair.get_repair(sock):
        tcp_repair.set_repair(sock, tcp_repair.ON)  # which sets the mark
    usual = None if write_seq is None else _after_the_end(write_seq, tcp_repair.get_window(sock).max_window)
    tcp_repair.disconnect(sock)
    late = 0
    with contextlib.suppress(KernelError):
        late = 0 if usual is None else _write_seq(sock) - usual & seq.MASK
    with contextlib.suppress(KernelError):
        leave_repair(sock, tcp_repair.OFF_NO_PROBE)
    sock.close()
    return late


def _after_the_end(write_seq: int, max_window: int) -> int:
    """What becomes of ``write_seq``: the socket's next connection begins beyond this one (tcp_disconnect())."""
    return seq.add(write_seq, max_window + 2) or 1


def _write_seq(sock: socket.socket) -> int:
    """Of a socket in repair mode without a connection: nobody writes to it, so its send queue may be selected."""
    tcp_repair.select_queue(sock, tcp_repair.SEND_QUEUE)
    return tcp_repair.get_queue_seq(sock)
