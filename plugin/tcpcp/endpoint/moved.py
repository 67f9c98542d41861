"""Whether a call that was under way has read or written since a socket was got."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Sequence

from tcpcp.endpoint import reader
from tcpcp.endpoint.held import Holding, some
from tcpcp.errors import KernelError, Moved
from tcpcp.kernel import polling, tcp_repair


def require_unmoved(socks: Sequence[socket.socket], holdings: Sequence[Holding]) -> None:
    """Make sure that no call has read from *socks*, or written to them, since they were got as *holdings*.

    :raises Moved: of those named.
    """
    events = polling.events(socks, select.POLLRDHUP)
    if moved := [
        tcp_repair.describe(sock)
        for sock, one in zip(socks, holdings, strict=True)
        if _moved(sock, one) or _shut(events.get(sock.fileno(), 0), one)
    ]:
        raise Moved(
            f"{some(moved)}: a thread that was in the middle of a call has read or written since it was got, or "
            "the program has shut it down: the ICI does not describe it any more"
        )


def _shut(events: int, one: Holding) -> bool:
    """Whether reading is shut since, by shutdown(SHUT_RD); nothing arrives that could have ended it."""
    comes_more = one.left is not None and one.known is not None and not one.known.hung_up
    return comes_more and bool(events & select.POLLRDHUP)


def _moved(sock: socket.socket, one: Holding) -> bool:
    """A number that is closed meanwhile has nothing to tell; whoever uses it next says so."""
    with contextlib.suppress(KernelError):
        return one.left is not None and one.left != reader.left(sock)
    return False
