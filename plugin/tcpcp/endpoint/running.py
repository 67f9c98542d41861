"""How a socket that is not isolated any more begins to run: its timers, out of repair mode, its peer woken."""

from __future__ import annotations

import contextlib
import socket

from tcpcp.endpoint import asking, holding, repair_mode, timers, waking
from tcpcp.endpoint.held import Holding
from tcpcp.endpoint.waking import Overdue
from tcpcp.errors import KernelError
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State


def go_on(sock: socket.socket, one: Holding) -> None:
    """Its clocks run again; does nothing the second time."""
    if one.options is not None:
        timers.go_on(sock, one.options)
        one.options = None


def activate(sock: socket.socket, one: Holding, *, unseen: bool) -> None:
    """Let *sock* run, whose filter is lifted, and wake its peer.

    :param unseen: connection tracking does not see what is fed.
    :raises KernelError: it is still in repair mode.
    """
    go_on(sock, one)
    state = tcp_repair.get_state(sock)
    fed = waking.unacceptable(sock, state, one.known, unseen=unseen)
    # First: what is sent later may be all, and be acknowledged, and what meets no socket draws a reset.
    waking.wake(sock, fed, one.known and one.known.local)
    # In ESTABLISHED the window probe asks for all that is late.
    late = Overdue() if state == State.ESTABLISHED else _overdue(sock, one, state)
    _run(sock, late._replace(mode=tcp_repair.OFF), one, state)


def resume(sock: socket.socket, one: Holding) -> None:
    """Let *sock* run, whose filter is lifted. :raises KernelError: it is still in repair mode."""
    go_on(sock, one)
    state = tcp_repair.get_state(sock)
    _run(sock, _overdue(sock, one, state), one, state)


def _overdue(sock: socket.socket, one: Holding, state: int) -> Overdue:
    return waking.overdue(sock, state, one.held_s, one.known)


def _run(sock: socket.socket, late: Overdue, one: Holding, state: int) -> None:
    """:param state: in which *sock* is."""
    repair_mode.leave_repair(sock, late.mode)
    holding.drop([one])
    waking.wake(sock, late.fed, one.known and one.known.local)
    asking.ask(sock, late.asked)
    if _waits(sock):
        _push(sock)
    if state == State.CLOSE and one.lives:
        timers.require_no_error(sock)


def _waits(sock: socket.socket) -> bool:
    """Whether something is to be sent. Where that is not told it leaves by a timer: *sock* runs all the same."""
    with contextlib.suppress(KernelError):
        return tcp_repair.get_outq_nsd(sock) > 0
    return False


def _push(sock: socket.socket) -> None:
    """Send what waits: a timer for what is held back knows no round-trip time yet, and would take seconds."""
    corked = tcp_repair.get_int(sock, tcp_repair.TCP, tcp_repair.TCP_CORK, "TCP_CORK")
    for value in (0, corked) if corked else (0,):
        tcp_repair.set_int(sock, tcp_repair.TCP, tcp_repair.TCP_CORK, value, "TCP_CORK")
