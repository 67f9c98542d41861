"""Whether a call that was under way has read or written since a socket was got."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from tcpcp.endpoint import reader
from tcpcp.endpoint.held import Holding, some
from tcpcp.errors import KernelError, Moved
from tcpcp.kernel import tcp_repair


def require_unmoved(socks: Sequence[socket.socket], holdings: Sequence[Holding]) -> None:
    """Make sure that no call has read from *socks*, or written to them, since they were got as *holdings*.

    :raises Moved: of those named.
    """
    if moved := [
        tcp_repair.describe(sock) for sock, one in zip(socks, holdings, strict=True) if _moved(sock, one)
    ]:
        raise Moved(
            f"{some(moved)}: a thread that was in the middle of a call has read or written since it was got, or "
            "the program has shut it down: the ICI does not describe it any more"
        )


def _moved(sock: socket.socket, one: Holding) -> bool:
    """A number that is closed meanwhile has nothing to tell; whoever uses it next says so."""
    with contextlib.suppress(KernelError):
        return one.left is not None and one.left != reader.left(sock)
    return False
