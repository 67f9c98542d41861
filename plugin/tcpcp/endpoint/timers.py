"""The clocks that must stand still while a connection is isolated: keepalive, and the limits of retransmission.

Nothing of it arrives and nothing leaves, so the kernel counts retransmissions that are not answered, and in the end
takes the peer for dead. A user timeout of 21 days puts that off, whatever the limits are (net/ipv4/tcp_timer.c
tcp_write_timeout(), tcp_keepalive_timer()), and keepalive is off. Window probes are counted beside the user timeout
(tcp_probe_timer()): those are seen to by `patience`.
With timestamps in microseconds it is 31 minutes: the kernel multiplies it by 1000 in 32 bits and compares with
a sign (retransmits_timed_out()). An eighth of what that could hold is left free, for what was sent may have been
sent "later" than now: pacing dates it so, and we set the clock. 24 days would be over then, at once.

:func:`go_on` sets both as they were. The time in between still counts for what is unacknowledged: a connection
whose own user timeout is shorter than the time for which it was isolated ends with ETIMEDOUT, unless its peer is
quicker.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from tcpcp.errors import KernelError
from tcpcp.kernel import tcp_repair
from tcpcp.kernel.tcp_repair import TCP

_TCP_USER_TIMEOUT = 18
_LONGEST_MS = 2**31 // 8 * 7
_LONGEST_IN_US_MS = _LONGEST_MS // 1000


def stand_still(sock: socket.socket, options: Mapping[str, int], *, microseconds: bool) -> None:
    """Stop the clocks of *sock*.

    :param options: its own, as in an ICI. :param microseconds: the unit of its timestamps.
    """
    longest = _LONGEST_IN_US_MS if microseconds else _LONGEST_MS
    tcp_repair.set_int(sock, TCP, _TCP_USER_TIMEOUT, longest, "TCP_USER_TIMEOUT")
    if options.get("SO_KEEPALIVE"):
        tcp_repair.set_int(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0, "SO_KEEPALIVE")


def go_on(sock: socket.socket, options: Mapping[str, int]) -> None:
    """Undo :func:`stand_still`; a user timeout that the program has set meanwhile stays."""
    timeout = options.get("TCP_USER_TIMEOUT", 0)
    now = tcp_repair.get_int(sock, TCP, _TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT")
    if now in (_LONGEST_MS, _LONGEST_IN_US_MS):
        tcp_repair.set_int(sock, TCP, _TCP_USER_TIMEOUT, timeout, "TCP_USER_TIMEOUT")
    if options.get("SO_KEEPALIVE"):
        tcp_repair.set_int(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1, "SO_KEEPALIVE")


def require_no_error(sock: socket.socket) -> None:
    """Tell an end that our isolation has made of one that the peer has made: while other sockets of a batch have
    their turn the last acknowledgement of our FIN may arrive, which is no error.

    :raises KernelError: the connection of *sock*, which has ended, has ended by an error; that is told once.
    """
    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise KernelError("the connection has ended while it was isolated", number, tcp_repair.describe(sock))
