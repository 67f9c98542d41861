"""get, create, activate, release: the order of the calls (paper sections 2 and 3).

From socket to ICI (:func:`get`; `reader`)

1.  Check that it is plain TCP without urgent data, and read what packets do not change, options first of all
    (repair mode hides SO_REUSEADDR): `inspection`.
2.  Isolate it: `isolation`. Repair mode does not. Read ``ts_recent`` of all of a batch: `kernel_fields`.
3.  TCP_REPAIR 1.
4.  TCP_INFO, TCP_REPAIR_WINDOW, TCP_MAXSEG (``mss_clamp``, in repair mode only), TCP_TIMESTAMP.
5.  TCP_REPAIR_QUEUE send: TCP_QUEUE_SEQ is ``write_seq``; less SIOCOUTQNSD it is ``snd_nxt``, less SIOCOUTQ
    ``snd_una``. recv(MSG_PEEK) copies the queue.
6.  TCP_REPAIR_QUEUE receive: TCP_QUEUE_SEQ is ``rcv_nxt``; SIOCINQ, with SO_OOBINLINE set, what is not read.
7.  After all of a batch: did ``rcv_nxt`` or ``snd_una`` move? Then again from 4.

From ICI to socket (:func:`create`; `builder`)

1.  Isolate the connection before its socket exists, so that no packet draws a reset.
2.  Options, congestion control, receive buffer, SO_REUSEADDR 1: before repair mode.
3.  TCP_REPAIR 1; bind; TCP_QUEUE_SEQ of both queues, their first bytes; TCP_MAXSEG ``mss_clamp``; connect;
    TCP_MAXSEG 0. connect() sends nothing in repair mode, computes the segment size, and leaves the send
    window 0.
4.  TCP_REPAIR_OPTIONS; TCP_TIMESTAMP. A segment fed through a raw socket: ``ts_recent``, and on the same path
    the round-trip time.
5.  Receive queue selected: send() puts data into it. Send queue selected: send() counts data as sent.
6.  TCP_REPAIR -1; send() and shutdown() queue what was not sent: the window of 0 keeps it here;
    TCP_REPAIR 1.
7.  Our FIN, if sent: shutdown() with the send queue selected. The peer's FIN, or its acknowledgement of
    ours: a segment fed likewise. The socket filter.
8.  ECN, and on the same path the congestion window and threshold: `congestion_state`. TCP_REPAIR_WINDOW.

Activate: lift the isolation; TCP_REPAIR 0, which sends the window probe that wakes the peer; SO_REUSEADDR as
it was; where data waits unsent, TCP_CORK as it was, which pushes it. Release: TCP_REPAIR 1 and close, which
sends nothing; the filter stays until it expires.

Source: net/ipv4/tcp.c, net/ipv4/tcp_output.c of Linux 6.18; CRIU's soccr/soccr.c for the recipe.
"""

from __future__ import annotations

import atexit
import itertools
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from itertools import compress

from tcpcp import (
    beforehand,
    builder,
    codec,
    congestion_state,
    host,
    inspection,
    kernel_fields,
    raw_segment,
    reader,
    socket_filter,
    socket_options,
    tcp_repair,
)
from tcpcp.builder import finish_restored
from tcpcp.errors import IsolationError, KernelError, TcpcpError
from tcpcp.ici import Ici
from tcpcp.inspection import inspect
from tcpcp.isolation import Flow, Isolation, lift, sweep
from tcpcp.reader import read, read_many
from tcpcp.same_path import InitialWindows

__all__ = [
    "activate",
    "activate_many",
    "create",
    "create_many",
    "finish_restored",
    "flow_of",
    "get",
    "get_many",
    "inspect",
    "max_size",
    "prepare",
    "read",
    "read_many",
    "release",
    "release_many",
    "resume",
    "resume_many",
    "size",
]

#: An image without queues: record header, all fields at their longest, options.
IMAGE_OVERHEAD_BYTES = 2048

_counter = itertools.count()
_lock = threading.Lock()
#: The filters that get() and create() made, by connection. A filter may hold several connections.
_held: dict[Flow, Isolation] = {}
#: A filter that is ready for the next of them.
_spare: list[Isolation] = []


def prepare() -> None:
    """Do beforehand what takes long, so that the next :func:`get` or :func:`create` takes 1 ms and not 100.

    Loads what is loaded once in a process, and makes one filter, which holds nothing yet; for each further
    call that isolates, call it again. Nothing else depends on it.

    :raises IsolationError: there will be no filter later either.
    """
    beforehand.load()
    if not _spare:
        isolation = _new_filter()
        isolation.prepare()
        _spare.append(isolation)
        atexit.register(_discard, isolation)


def _discard(isolation: Isolation) -> None:
    """At the end of this program: a spare filter that was not used goes; one that was, holds on."""
    if isolation in _spare:
        isolation.release()


def flow_of(sock: socket.socket) -> Flow:
    """The connection of *sock*, for :class:`tcpcp.isolation.Isolation`.

    :raises KernelError: it is not connected.
    """
    local, peer, _ = inspection.ends(sock)
    return Flow(local, peer)


def get(sock: socket.socket) -> Ici:
    """Read the endpoint *sock* and leave it isolated, in repair mode.

    :param sock: TCP socket in a synchronised state; needs CAP_NET_ADMIN.
    :return: the ICI: sequence numbers mod 2**32, queues as bytes, times in timestamp ticks.
    :raises Unsupported: urgent data, MPTCP, kTLS, a state that cannot be passed; the socket is as before.
    :raises PermissionDenied: no CAP_NET_ADMIN here; nothing was tried.
    :raises IsolationError: the filter could not be made; the socket is as before.
    :raises KernelError: the socket is as before; if undoing failed too, the note says how.
    Source: paper section 2 steps 1-3; net/ipv4/tcp.c do_tcp_getsockopt().
    """
    return get_many([sock])[0]


def get_many(socks: Iterable[socket.socket | tuple[int, socket.socket]]) -> list[Ici]:
    """:func:`get` for several connections under one filter; all of them or, after an error, none.

    :param socks: sockets, or pairs of tag and socket.
    """
    pairs = [entry if isinstance(entry, tuple) else (0, entry) for entry in socks]
    host.require_repair()
    kernel_fields.prepare()  # before the isolation, for the first time takes long
    prepared = inspection.prepare_many([sock for _, sock in pairs])
    flows = [Flow(one.local, one.peer) for one in prepared if not one.closed]
    _hold(flows)
    try:
        return read_many(pairs, prepared)
    except BaseException as exc:
        _lift_after(flows, exc)
        raise


def size(source: Ici | socket.socket) -> int:
    """Bytes of the image of *source*: of an ICI exactly (paper 3.2), of a socket :func:`max_size`."""
    return codec.size(source) if isinstance(source, Ici) else max_size(source)


def max_size(sock: socket.socket) -> int:
    """What the image of *sock* would need if it was read now, in bytes; more may arrive until it is isolated.

    Source: paper 3.1 TCP_MAXICISIZE.
    :raises KernelError: not a connected TCP socket.
    """
    queues = tcp_repair.get_outq(sock) + tcp_repair.get_inq(sock)
    return IMAGE_OVERHEAD_BYTES + queues + len(socket_filter.get(sock))


def create(
    ici: Ici, *, sock: socket.socket | None = None, same_path: bool = False, isolate: bool = True
) -> socket.socket:
    """Rebuild the endpoint *ici* and leave it isolated, in repair mode.

    :param ici: from :func:`get`. It is looked at (paper 7.1) before any call is made for it.
    :param sock: a TCP socket of the right family to use, neither connected nor listening.
    :param same_path: the peer is reached as it was from the origin: start with the congestion window the
        connection had instead of a new one (paper 5).
    :param isolate: False when the caller holds the connection isolated already.
    :return: the socket; nothing has been sent. Its local address exists on this host.
    The local port (paper 2.1): the ICI's, as on the origin; or with ``ici.at(port=0)`` any free port; or
    where *sock* is bound already, its port and address, and the ICI's are ignored. The peer goes on talking
    to the old port and address, so with another one a translation is needed in the network: what the peer
    sends to the old end must arrive here at the new one, and what is sent from the new end must reach the
    peer as from the old one, from before :func:`activate` on until the connection ends; without connection
    tracking, which has seen no SYN (tests/lab/test_ports.py has the rules).

    :raises Unsupported: a segment fed to this host does not arrive.
    :raises IciError: what is wrong with the ICI, in itself or on this host; nothing was tried.
    :raises PermissionDenied: no CAP_NET_ADMIN, or for a half-closed connection no CAP_NET_RAW; nothing was
        tried.
    :raises KernelError: naming the call. After any error: nothing was sent, a socket made here is closed and
        the filter gone; a socket given may be anything between fresh and connected in repair mode: close it.
    """
    return create_many([ici], socks=[sock], same_path=same_path, isolate=isolate)[0]


def create_many(
    icis: Sequence[Ici],
    *,
    socks: Sequence[socket.socket | None] | None = None,
    same_path: bool = False,
    isolate: bool = True,
) -> list[socket.socket]:
    """:func:`create` for several connections under one filter; all of them or, after an error, none.

    With local port 0, or a socket that is bound, the connection is isolated when its end is known.
    """
    given = socks or [None] * len(icis)
    bound = [sock is not None and sock.getsockname()[1] != 0 for sock in given]
    _require(icis, bound, same_path)
    settled = [ici.local.port != 0 and not elsewhere for ici, elsewhere in zip(icis, bound, strict=True)]
    known = [Flow(ici.local, ici.peer) for ici in compress(icis, settled)] if isolate else []
    if known:
        _hold(known)
    made: list[socket.socket] = []
    try:
        with InitialWindows(icis if same_path and not congestion_state.ready() else ()):
            _build_all(icis, given, same_path, made)
        unsettled = [
            flow_of(one) for one, at_once in zip(made, settled, strict=True) if isolate and not at_once
        ]
        late = [flow for flow in unsettled if flow not in _held]
        if late:
            _hold(late)
    except BaseException as exc:
        for one in made:
            builder.discard(one)
        _lift_after(known, exc)
        raise
    return made


def _require(icis: Sequence[Ici], bound: Sequence[bool], same_path: bool) -> None:
    """Refuse what cannot work or must not be tried."""
    host.check(icis, bound=bound)
    host.require_repair()
    if any(map(builder.feeds, icis)):
        host.require_raw()
    if same_path or any(ici.negotiated.ecn for ici in icis):
        congestion_state.prepare()


def _build_all(
    icis: Sequence[Ici], socks: Sequence[socket.socket | None], same_path: bool, made: list[socket.socket]
) -> None:
    """Append to *made* what is built, so that it is known after an error too."""
    present = socket_options.fresh([ici.ipv6_socket for ici in icis])
    may_feed = host.has_raw()
    with raw_segment.keeping():
        for ici, sock in zip(icis, socks, strict=True):
            known = None if sock else present.get(ici.ipv6_socket)
            made.append(builder.build(ici, sock, present=known, same_path=same_path, may_feed=may_feed))


def activate(sock: socket.socket) -> None:
    """Let the endpoint run: lift its isolation, leave repair mode, wake the peer with a window probe.

    :param sock: from :func:`create`, or from :func:`get` to take it back with a wake-up.
    :raises KernelError: the socket is still in repair mode, and no longer isolated.
    :raises IsolationError: nothing has changed.
    """
    activate_many([sock])


def activate_many(socks: Sequence[socket.socket]) -> None:
    """:func:`activate` for several sockets, their filters lifted first; an error stops at its socket."""
    _run(socks, tcp_repair.OFF)


def resume(sock: socket.socket) -> None:
    """Undo :func:`get`: lift the isolation and leave repair mode. Nothing is sent for its own sake.

    :raises KernelError: the socket is still in repair mode, and no longer isolated.
    :raises IsolationError: nothing has changed.
    """
    resume_many([sock])


def resume_many(socks: Sequence[socket.socket]) -> None:
    """:func:`resume` for several sockets, their filters lifted first; an error stops at its socket."""
    _run(socks, tcp_repair.OFF_NO_PROBE)


def _run(socks: Sequence[socket.socket], mode: int) -> None:
    if _held:
        _lift([flow_of(sock) for sock in socks])
    for sock in socks:
        reader.leave_repair(sock, mode)
        if tcp_repair.get_outq_nsd(sock):
            corked = tcp_repair.get_int(sock, tcp_repair.TCP, tcp_repair.TCP_CORK, "TCP_CORK")
            tcp_repair.set_int(sock, tcp_repair.TCP, tcp_repair.TCP_CORK, corked, "TCP_CORK")


def release(sock: socket.socket) -> None:
    """Drop the endpoint: close *sock* without a packet. Its filter stays until it expires, about a minute.

    A late segment for a connection without a socket would draw a reset; the filter catches those.
    :raises KernelError: the socket is open still.
    """
    release_many([sock])


def release_many(socks: Sequence[socket.socket]) -> None:
    """:func:`release` for several sockets; their filters' time starts anew."""
    filters = {_forget(sock) for sock in socks}
    for sock in socks:
        builder.discard(sock)
    for isolation in filters:
        if isolation is not None:
            isolation.refresh()
    sweep()


def _forget(sock: socket.socket) -> Isolation | None:
    """The filter of *sock*, which from now on nobody lifts."""
    try:
        flow = flow_of(sock)
    except KernelError:
        return None  # reset meanwhile: there is nothing to answer for
    with _lock:
        return _held.pop(flow, None)


def _hold(flows: Sequence[Flow]) -> None:
    isolation = _held_by_spare(flows)
    if isolation is None:
        isolation = _new_filter()
        isolation.hold(flows)
    with _lock:
        _held.update(dict.fromkeys(flows, isolation))


def _new_filter() -> Isolation:
    return Isolation(f"{os.getpid()}-{next(_counter)}")


def _held_by_spare(flows: Sequence[Flow]) -> Isolation | None:
    """The filter of :func:`prepare`, which holds *flows* now; None where there is none."""
    try:
        isolation = _spare.pop()
        isolation.hold(flows)
    except IndexError:
        return None
    except IsolationError:  # taken away by somebody's sweep, or made in another network namespace
        return None
    return isolation


def _lift(flows: Sequence[Flow]) -> None:
    """Let *flows* through again; a filter that holds nothing any more is removed."""
    with _lock:
        by_filter: dict[Isolation, list[Flow]] = {}
        for flow in flows:
            if holder := _held.get(flow):
                by_filter.setdefault(holder, []).append(flow)
        for isolation, theirs in by_filter.items():
            if sum(one is isolation for one in _held.values()) > len(theirs):
                isolation.drop_flows(theirs)
            else:
                isolation.release()
            for flow in theirs:
                del _held[flow]
    # This host, in this process or another, may have passed one of them on less than a minute ago.
    lift([flow for theirs in by_filter.values() for flow in theirs])


def _lift_after(flows: Sequence[Flow], error: BaseException) -> None:
    try:
        _lift(flows)
    except TcpcpError as exc:
        error.add_note(f"and the filter could not be removed: {exc}; it expires by itself")
