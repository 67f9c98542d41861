"""A listener that moves: nothing that waits in its accept queue, or knocks meanwhile, is lost.

An accept queue is not part of any endpoint: the connections in it are, each by itself. So they are accepted
first and passed like all others. Three steps, on the origin::

    held = tcpcp.hold_new(listener)           # the first SYN of a new connection is dropped, not refused
    waiting = tcpcp.drain(listener)           # waiting.left: handshakes that were not over in time; .unknown
    icis = tcpcp.get_many([*connections, *waiting])
    listener.close()
    ...                                       # the destination listens, and packets arrive there
    held.release()

A dropped SYN is sent again by its sender after 1 s, 3 s, ...: it reaches whoever has the address then.

Where the listener has TCP_DEFER_ACCEPT, the kernel drops the last segment of the handshake of a client that sends
nothing with it, and waits for data. The client takes itself for connected; here there is a handshake under way,
and once the listener is closed a reset. With the option off, which takes effect at once, its connection is there
when the kernel repeats the SYN-ACK: when the client has waited for 1 s, 3 s, 7 s, ... (measured on 6.18).

Where the host answers with SYN cookies, because it always does or because its queue was full, it keeps nothing of
a handshake: whether one is under way nobody can know here (:mod:`tcpcp.kernel.syn_cookies`). So it is waited for as
long as for any other, and :attr:`Drained.unknown` says so.

Source: net/ipv4/tcp_minisocks.c tcp_check_req(); net/ipv4/inet_connection_sock.c reqsk_timer_handler(),
syn_ack_recalc().
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Iterable, Iterator

from tcpcp.endpoint import handed_in, host, inspection, socket_ends
from tcpcp.endpoint.handed_in import HasFileno
from tcpcp.endpoint.new_connections import NewConnections
from tcpcp.endpoint.uninterrupted import Uninterrupted
from tcpcp.errors import IsolationError, PermissionDenied, TcpcpError, Unsupported, WrongArgument
from tcpcp.kernel import diag, polling, syn_cookies, tcp_repair
from tcpcp.record.ici import Endpoint, State

#: How long a handshake may take whose SYN came before the hold: also where its SYN-ACK has to be repeated.
DEADLINE_S = 1.5
_PAUSE_S = 0.001
_DEFER = (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)


class Drained(list[socket.socket]):
    """The connections that :func:`drain` has accepted.

    :ivar left: handshakes that were not over when it gave up, on the listener's port in this network namespace.
        Close the listener now and their clients, some of which may take themselves for connected, are refused
        or reset as soon as packets arrive; call :func:`drain` again to wait longer.
    :ivar unknown: there may be more than *left*: this host has answered with SYN cookies, now or at any time since
        it started.
    """

    def __init__(self, accepted: Iterable[socket.socket], left: int, unknown: bool = False) -> None:
        super().__init__(accepted)
        self.left, self.unknown = left, unknown


def hold_new(listener: HasFileno) -> NewConnections:
    """Drop the first SYN of every new connection to *listener*; handshakes under way and connections go on.

    :param listener: a listening TCP socket of the calling thread's network namespace, or anything with a
        ``fileno()`` that is one.
    :return: the filter. It lets everything through after a minute unless it is renewed by ``refresh()``;
        ``release()`` removes it, and has to wait until the port is answered for elsewhere: a SYN that meets
        no listener is refused. Both raise ``Expired`` where it was not in force any more.
    :raises Unsupported: it does not listen. :raises OtherNamespace: it is of another network namespace.
    :raises IsolationError, PermissionDenied: nothing has changed.
    """
    made: list[NewConnections] = []
    try:
        with _listening(listener) as plain, Uninterrupted():
            made.append(_held(plain))
        return made[0]
    except BaseException:
        for one in made:  # a handler, whose signal had to wait: nobody will have it
            with contextlib.suppress(TcpcpError):
                one.release()
        raise


def _held(listener: socket.socket) -> NewConnections:
    try:
        return NewConnections(bound(listener))
    except IsolationError as exc:
        raise IsolationError(f"{tcp_repair.describe(listener)}: {exc}", exc.errno) from exc
    except PermissionDenied as exc:
        raise PermissionDenied(f"{tcp_repair.describe(listener)}: {exc}") from exc


def drain(listener: HasFileno, *, deadline_s: float = DEADLINE_S) -> Drained:
    """Accept all connections that wait, and those whose handshake ends before *deadline_s* has passed.

    :param listener: listening; with :func:`hold_new` in force, else there may be no end. TCP_DEFER_ACCEPT is off
        meanwhile, and then as it was. Others, threads and processes, may accept from it at the same time, but not
        in a call that blocks: where its open file does (no O_NONBLOCK, as without a timeout in Python), it does not
        for some microseconds for each connection that is accepted here, whoever shares it. Who calls accept() just
        then, while no other one waits, gets EAGAIN (BlockingIOError), once; who waits in it already waits on. The
        kernel has no accept() that does not wait by itself. A Python socket's timeout is not touched.
    :param deadline_s: seconds. It is over earlier when it is known that no handshake is under way. With
        TCP_DEFER_ACCEPT a client that has sent nothing takes up to a second, or as long again as it has been
        connected.
    :return: the connections, non-blocking, as accept() gives them, and how many handshakes are left.
    :raises Unsupported: it does not listen. :raises OtherNamespace: it is of another network namespace.
    :raises KernelError: of accept(), e.g. EMFILE, or EAGAIN where another process, which drains the same listener,
        was stopped in its middle; what had been accepted is closed.
    """
    accepted: list[socket.socket] = []
    if not isinstance(deadline_s, (int, float)) or math.isnan(deadline_s):
        raise WrongArgument(f"deadline_s is {deadline_s!r}, must be a number of seconds")
    try:
        with _listening(listener) as plain, _not_deferring(plain):
            unknown = syn_cookies.may_be_about()
            until = time.monotonic() + deadline_s
            return Drained(accepted, _accept_until(plain, accepted, until, unknown), unknown)
    except BaseException:
        for one in accepted:
            one.close()
        raise


def _accept_until(
    listener: socket.socket, accepted: list[socket.socket], deadline: float, unknown: bool
) -> int:
    """How many handshakes are under way still, none of which is among what was *accepted*.

    :param unknown: there may be others.
    """
    while True:
        over = time.monotonic() > deadline
        under_way, before = handshakes(listener), len(accepted)
        _accept_all(listener, accepted)
        if (over or not (under_way or unknown)) and len(accepted) == before:
            return under_way
        if under_way or unknown:
            time.sleep(_PAUSE_S)


@contextlib.contextmanager
def _not_deferring(listener: socket.socket) -> Iterator[None]:
    deferred = tcp_repair.get_int(listener, *_DEFER, "TCP_DEFER_ACCEPT")
    if not deferred:
        yield
        return
    tcp_repair.set_int(listener, *_DEFER, 0, "TCP_DEFER_ACCEPT")
    try:
        yield
    finally:
        tcp_repair.set_int(listener, *_DEFER, deferred, "TCP_DEFER_ACCEPT")


def _accept_all(listener: socket.socket, accepted: list[socket.socket]) -> None:
    """Append to *accepted* what waits, so that it is known after an error too."""
    while _accept_one(listener, accepted):
        pass


def _accept_one(listener: socket.socket, accepted: list[socket.socket]) -> bool:
    """A handler that raises leaves the listener as it was, and nothing that was accepted unknown."""
    with Uninterrupted():
        made = polling.accept(listener)
        if made is not None:
            accepted.append(made)
    return made is not None


def handshakes(listener: socket.socket) -> int:
    """How many connections to the port of *listener* are in SYN_RECV in this network namespace.

    Source: net/ipv4/inet_diag.c lists them beside the listener.
    """
    port = listener.getsockname()[1]
    return sum(one.local_port == port for one in diag.tcp(states=1 << State.SYN_RECV))


def bound(listener: socket.socket) -> list[Endpoint]:
    """Where *listener* takes connections; one for both families counts twice."""
    local = socket_ends.local_end(listener)
    both = listener.family == socket.AF_INET6 and local.ip.is_unspecified
    if both and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return [local, Endpoint(socket_ends.address("0.0.0.0"), local.port)]
    return [local]


@contextlib.contextmanager
def _listening(given: HasFileno) -> Iterator[socket.socket]:
    """*given* as one of Python's sockets, which listens."""
    with contextlib.ExitStack() as stack:
        sock = handed_in.as_socket(given, stack)
        inspection.require_tcp(sock)
        if tcp_repair.get_state(sock) != State.LISTEN:
            raise Unsupported(f"{tcp_repair.describe(sock)}: not a listening socket")
        # There the filter is made, and handshakes are looked for.
        host.require_namespace([sock], host.namespace())
        yield sock
