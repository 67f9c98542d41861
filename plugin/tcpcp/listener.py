"""A listener that moves: nothing that waits in its accept queue, or knocks meanwhile, is lost.

An accept queue is not part of any endpoint: the connections in it are, each by itself. So they are accepted
first and passed like all others. Three steps, on the origin::

    held = tcpcp.hold_new(listener)           # the first SYN of a new connection is dropped, not refused
    waiting = tcpcp.drain(listener, deadline_s=1.0)
    icis = tcpcp.get_many([*connections, *waiting])
    listener.close()
    ...                                       # the destination listens, and packets arrive there
    held.release()

A dropped SYN is sent again by its sender after 1 s, 3 s, ...: it reaches whoever has the address then.
"""

from __future__ import annotations

import socket
import time

from tcpcp import diag, inspection, tcp_repair
from tcpcp.errors import IsolationError, Unsupported
from tcpcp.ici import Endpoint, State
from tcpcp.new_connections import NewConnections

#: How long a handshake may take whose SYN came before the hold.
DEADLINE_S = 1.0
_PAUSE_S = 0.001


def hold_new(listener: socket.socket) -> NewConnections:
    """Drop the first SYN of every new connection to *listener*; handshakes under way and connections go on.

    :param listener: a listening TCP socket.
    :return: the filter. It lets everything through after a minute unless it is renewed by ``refresh()``;
        ``release()`` removes it, and has to wait until the port is answered for elsewhere: a SYN that meets
        no listener is refused. Both raise ``Expired`` where it was not in force any more.
    :raises Unsupported: it does not listen. :raises IsolationError, PermissionDenied: nothing has changed.
    """
    _require_listening(listener)
    try:
        return NewConnections(bound(listener))
    except IsolationError as exc:
        raise IsolationError(f"{tcp_repair.describe(listener)}: {exc}", exc.errno) from exc


def drain(listener: socket.socket, *, deadline_s: float = DEADLINE_S) -> list[socket.socket]:
    """Accept all connections that wait, and those whose handshake ends before *deadline_s* has passed.

    :param listener: listening; with :func:`hold_new` in force, else there may be no end. Its own blocking
        mode is not changed.
    :param deadline_s: seconds. It is over earlier when no handshake is under way.
    :return: the connections, non-blocking, as accept() gives them.
    :raises Unsupported: it does not listen.
    :raises KernelError: of accept(), e.g. EMFILE; what had been accepted is closed.
    """
    _require_listening(listener)
    deadline = time.monotonic() + deadline_s
    accepted: list[socket.socket] = []
    try:
        while True:
            under_way = handshakes(listener)
            _accept_all(listener, accepted)
            if not under_way or time.monotonic() > deadline:
                return accepted
            time.sleep(_PAUSE_S)
    except BaseException:
        for one in accepted:
            one.close()
        raise


def _accept_all(listener: socket.socket, accepted: list[socket.socket]) -> None:
    """Append to *accepted* what waits, so that it is known after an error too."""
    mode = listener.gettimeout()
    listener.setblocking(False)
    try:
        while True:
            made, _ = listener.accept()
            made.setblocking(False)
            accepted.append(made)
    except BlockingIOError:
        return
    except OSError as exc:
        raise tcp_repair.failed("accept", listener, exc) from exc
    finally:
        listener.settimeout(mode)


def handshakes(listener: socket.socket) -> int:
    """How many connections to the port of *listener* are in SYN_RECV in this network namespace.

    Source: net/ipv4/inet_diag.c lists them beside the listener.
    """
    port = listener.getsockname()[1]
    return sum(one.local_port == port for one in diag.tcp(states=1 << State.SYN_RECV))


def bound(listener: socket.socket) -> list[Endpoint]:
    """Where *listener* takes connections; one for both families counts twice."""
    local = inspection.local_end(listener)
    both = listener.family == socket.AF_INET6 and local.ip.is_unspecified
    if both and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return [local, Endpoint(inspection.address("0.0.0.0"), local.port)]
    return [local]


def _require_listening(sock: socket.socket) -> None:
    if tcp_repair.get_info(sock).state != State.LISTEN:
        raise Unsupported(f"{tcp_repair.describe(sock)}: not a listening socket")
