"""get, create, activate, release: the order of the calls (paper sections 2 and 3).

From socket to ICI (:func:`get`; `reader`)

1.  Check that it is plain TCP without urgent data, and read what packets do not change, options first of all
    (repair mode hides SO_REUSEADDR): `inspection`, `preparation`. Of those that are alike, `fingerprint`, only
    the first that the process meets.
2.  Isolate it: `flow_table`. Repair mode does not.
3.  TCP_REPAIR 1. Read ``ts_recent`` and the numbers by BPF: `kernel_fields`. Where both queues are empty that is
    all: what follows is asked of the first of a kind, and has to say the same.
4.  TCP_INFO, TCP_REPAIR_WINDOW, TCP_MAXSEG (``mss_clamp``, in repair mode only), TCP_TIMESTAMP.
5.  Where something is to be sent: TCP_REPAIR_QUEUE send; TCP_QUEUE_SEQ is ``write_seq``; less SIOCOUTQNSD it is
    ``snd_nxt``, less SIOCOUTQ ``snd_una``. recv(MSG_PEEK) copies the queue. No queue selected: who writes to
    the socket gets an error. How little of this others notice: `queues`.
6.  Where something is not read: TCP_REPAIR -1, recv(MSG_PEEK), TCP_REPAIR 1; nothing can have come in between, and
    whether it was read BPF tells. The receive queue is not selected: what is written would go there.
7.  Without BPF ``rcv_nxt`` is the largest ``rcv_wup`` that TCP_REPAIR_WINDOW takes; SIOCINQ, with SO_OOBINLINE set,
    is what is not read.
8.  After all of a batch: did ``rcv_nxt`` or ``snd_una`` move? Then again from 4.

From ICI to socket (:func:`create`; `builder`)

1.  Options, congestion control, receive buffer: before repair mode.
2.  TCP_REPAIR 1, which lets it be bound beside others (`repair_mode`); bind; SO_REUSEADDR as it was.
3.  Isolate the connection, whose local end is known now, before its socket connects: no packet draws a reset.
    Unless another socket has it here, which would be cut off: `diag` is asked first.
4.  TCP_QUEUE_SEQ of both queues, their first bytes; TCP_REPAIR_WINDOW, from which connect() guesses the peer's
    segments; TCP_MAXSEG ``advmss``; connect; TCP_MAXSEG 0: `connecting`. connect() sends nothing in repair mode,
    and leaves the send window 0.
5.  TCP_REPAIR_OPTIONS, the window's shift always among them; where there is something to send the segment size
    anew; TCP_TIMESTAMP. A segment fed through a raw socket, `feeding`: ``ts_recent``, and with timestamps
    the round-trip time.
6.  Receive queue selected: send() puts data into it. Send queue selected: send() counts data as sent. `filling`.
7.  TCP_REPAIR -1; send() and shutdown() queue what was not sent: the window of 0 keeps it here;
    TCP_REPAIR 1.
8.  Our FIN, if sent: shutdown() with the send queue selected. The peer's FIN, or its acknowledgement of
    ours: a segment fed likewise, and acknowledged here: `halves`. The socket filter.
9.  ECN, and on the same path the congestion window and threshold: `congestion_state`. The buffers' sizes and
    what else would have limited the queues. TCP_REPAIR_WINDOW. The segment size. No queue selected.

Activate: introduce it to connection tracking; lift the isolation; TCP_REPAIR 0, which sends the window probe
that wakes the peer, or where it does not, `waking` and `asking`; SO_REUSEADDR as it was; where data waits
unsent, TCP_CORK as it was, which pushes it. Release: connect(AF_UNSPEC), which in repair mode ends the connection
without a packet for all who hold the socket; TCP_REPAIR -1; close; what arrives from now on stays unanswered.

Source: net/ipv4/tcp.c, net/ipv4/tcp_output.c of Linux 6.18; CRIU's soccr/soccr.c for the recipe.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Sequence, Set
from contextlib import ExitStack

from tcpcp.endpoint import (
    alone,
    asking,
    beforehand,
    builder,
    congestion,
    connecting,
    feeding,
    fingerprint,
    first_namespace,
    handed_in,
    holding,
    host,
    inspection,
    left_open,
    moved,
    patience,
    preparation,
    raw_segment,
    repair_mode,
    running,
    socket_ends,
    socket_options,
    timers,
    twins,
    untracked,
    waking,
)
from tcpcp.endpoint.handed_in import HasFileno, as_socket
from tcpcp.endpoint.held import Holding
from tcpcp.endpoint.isolation import Flow
from tcpcp.endpoint.reader import left_in, read, read_many
from tcpcp.endpoint.restored import finish_restored
from tcpcp.endpoint.same_path import InitialWindows
from tcpcp.endpoint.uninterrupted import Uninterrupted
from tcpcp.endpoint.waking import Known
from tcpcp.errors import Moved, TcpcpError, WrongArgument
from tcpcp.kernel import diag, fields, socket_filter, tcp_repair
from tcpcp.kernel.fields import Seen
from tcpcp.record import codec, whole
from tcpcp.record.checks import Limits
from tcpcp.record.ici import Endpoint, Ici, State

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
    "renew",
    "renew_many",
    "resume",
    "resume_many",
    "size",
]

#: An image without queues: record header, all fields at their longest, options.
IMAGE_OVERHEAD_BYTES = 2048
#: Fewer connections than these are quick to have if what is asked once for all of them is little.
_FEW = 10


def prepare() -> None:
    """Do beforehand what takes long, so that the next :func:`get` or :func:`create` takes 1 ms and not 100.

    Loads what is loaded once in a process, and makes the filter of this process, which holds nothing yet and
    stays until the process ends; every packet of the network namespace passes it. Nothing else depends on it.

    :raises PermissionDenied, IsolationError: there will be no filter later either.
    """
    with Uninterrupted():  # a handler may make a call that waits for what is being loaded
        namespace = host.require_repair()
        beforehand.load()
        holding.table(namespace).prepare()


def flow_of(sock: socket.socket) -> Flow:
    """The connection of *sock*, for :class:`tcpcp.endpoint.isolation.Isolation`.

    :raises KernelError: it is not connected.
    """
    local, peer, _ = socket_ends.ends(sock)
    return Flow(local, peer)


def inspect(sock: HasFileno) -> None:
    """Check that *sock* can be passed. Changes nothing and works on a socket in use.

    :raises Unsupported, AlreadyGot, KernelError: as :func:`tcpcp.endpoint.inspection.inspect`.
    """
    handed_in.require_no_files(sock)
    with Uninterrupted(), ExitStack() as stack:
        inspection.inspect(as_socket(sock, stack))


def get(sock: HasFileno) -> Ici:
    """Read the endpoint *sock* and leave it isolated, in repair mode.

    :param sock: TCP socket in a synchronised state, of the calling thread's network namespace, or anything
        with a ``fileno()``; needs CAP_NET_ADMIN. Others may use it while this is at work (0.1 ms), but where
        something is to be sent a MSG_PEEK that they begin in these microseconds may get that: `queues`.
        Later calls fail, but for splice(2), shutdown() and setsockopt(), which :func:`release` loses.
    :return: the ICI: sequence numbers mod 2**32, queues as bytes, times in timestamp ticks.

    A thread that sleeps in recv() or send() sleeps on. But one that was woken just before, without a processor yet,
    goes on as if nothing was: the kernel looks at repair mode when a call begins. What it does after this returns,
    as what splice(2) and shutdown() do, the ICI does not have: :func:`release` looks, and refuses with ``Moved``;
    :func:`resume` goes on with the connection here, and nothing is lost. One that waits for more than has come
    (MSG_WAITALL, SO_RCVLOWAT over 1) has that in its buffer: it counts as read, the ICI does not have it, nothing
    tells. It gets it when its call ends: at :func:`release`, too few bytes, here.

    It stays isolated for :data:`tcpcp.endpoint.isolation.TIMEOUT_S`, a minute; :func:`renew` starts that
    anew. After that packets reach the socket again and are acknowledged, so that the ICI does not describe
    the connection any more: then :func:`release` refuses with ``Expired``, and :func:`resume` says so.
    Only the process that called this can go on with it. Should it be killed while another one has the socket too
    (a parent its child's, say), that one can take the socket out of repair mode by hand, with setsockopt() of
    TCP_REPAIR, -1, once the isolation has run out: the connection goes on. TCP_USER_TIMEOUT, SO_KEEPALIVE and
    SO_REUSEADDR have then to be set as they are to be, for nobody else knows what they were.
    What the kernel would still have told of what was sent with MSG_ZEROCOPY it tells nobody: :func:`release` lets
    go of the memory, and the new socket counts from 0.

    :raises Unsupported: urgent data, MPTCP, TLS, TCP-MD5 or TCP-AO, an IPsec policy of the socket itself or a map
        of sockets that it is in (lost in silence where BPF is not permitted); a state or an option's value that
        cannot be passed, an error or a message in the error queue that has not been read; something with a buffer
        of its own, as makefile() makes, or a socket of Python's with such files still open; another connection
        has the same two ends, by another interface (:mod:`tcpcp.endpoint.twins`).
    :raises AlreadyGot: it is in repair mode already, or another process gets it at this moment: so may both hear.
    :raises OtherNamespace: it is of another network namespace.
    :raises PermissionDenied: no CAP_NET_ADMIN here.
    :raises IsolationError: the filter could not be made.
    :raises KernelError: a call failed; if undoing failed too, the note says how. After any error the socket is
        as before.
    Source: paper section 2 steps 1-3; net/ipv4/tcp.c do_tcp_getsockopt().
    """
    return get_many([sock])[0]


def get_many(socks: Iterable[HasFileno | tuple[int, HasFileno]]) -> list[Ici]:
    """:func:`get` for several connections under one filter; all of them or, after an error, none.

    :param socks: sockets, or pairs of tag, 0 to 2**64 - 1, and socket.
    :raises IciError, WrongArgument: a tag is none, or an entry neither; nothing has changed.
    """
    entries = handed_in.entries(socks)
    icis: list[Ici] = []
    try:
        with Uninterrupted():
            icis = _get_claimed(entries)
    except BaseException as exc:
        if icis:  # a handler, whose signal had to wait: nobody will have them
            _resume_after(entries, exc)
        raise
    return icis


def _resume_after(entries: Iterable[tuple[int, HasFileno]], error: BaseException) -> None:
    try:
        resume_many([sock for _, sock in entries])
    except TcpcpError as exc:
        error.add_note(f"and in resuming: {exc}")


def _get_claimed(entries: Iterable[tuple[int, HasFileno]]) -> list[Ici]:
    namespace = host.require_repair()
    fingerprint.prepare()  # before the isolation, for the first time takes long
    with ExitStack() as stack:
        pairs = [(tag, as_socket(sock, stack)) for tag, sock in entries]
        plain = [sock for _, sock in pairs]
        seen = fields.look(plain)
        host.require_namespace(_one_of_each(plain, seen), namespace)
        held = holding.claim(plain, [one.cookie if one else 0 for one in seen])
        try:
            return _get_all(pairs, seen, held, namespace)
        except BaseException as exc:
            _lift_after(held, exc)
            raise


def _one_of_each(socks: Sequence[socket.socket], seen: Sequence[Seen | None]) -> Iterable[socket.socket]:
    """Sockets with the same settings are of the same network namespace."""
    kinds = {one.settings if one else n: sock for n, (sock, one) in enumerate(zip(socks, seen, strict=True))}
    return kinds.values()


def _get_all(
    pairs: list[tuple[int, socket.socket]], seen: Sequence[Seen | None], held: list[Holding], namespace: int
) -> list[Ici]:
    plain = [sock for _, sock in pairs]
    prepared = preparation.prepare_many(plain, seen)
    wanted = [None if one.closed else Flow(one.local, one.peer) for one in prepared]
    flows = [flow for flow in wanted if flow]
    bound = [flow for flow, one in zip(wanted, prepared, strict=True) if flow and one.device]
    twins.require_none(flows, bound, namespace)
    holding.isolate(held, wanted, holding.table(namespace))
    alone.require_isolated_here(held, namespace)
    with ExitStack() as stack:
        alone.require_ended(plain, prepared, stack)
        icis = read_many(pairs, prepared)
    try:
        for one, ici in zip(held, icis, strict=True):
            one.left = left_in(ici)
        _stand_still(plain, held, icis, wanted, namespace)
        holding.enter(held)
    except BaseException as exc:
        _undo_get(plain, held, exc)
        raise
    return icis


def _stand_still(
    socks: Sequence[socket.socket],
    held: Sequence[Holding],
    icis: Sequence[Ici],
    flows: Sequence[Flow | None],
    namespace: int,
) -> None:
    for sock, one, ici, flow in zip(socks, held, icis, flows, strict=True):
        if ici.state is not State.CLOSE and flow is not None:
            one.options, one.lives = ici.options, True
            one.known = Known.of(ici, namespace, flow.local, flow.peer)
            microseconds = ici.timestamp is not None and ici.timestamp.microseconds
            timers.stand_still(sock, ici.options, microseconds=microseconds)
            if patience.is_needed(ici):
                patience.begin(sock, one, ici)


def _undo_get(socks: Sequence[socket.socket], held: Sequence[Holding], error: BaseException) -> None:
    for sock, one in zip(socks, held, strict=True):
        try:
            running.go_on(sock, one)
            repair_mode.leave_repair(sock, tcp_repair.OFF_NO_PROBE)
        except TcpcpError as exc:
            error.add_note(f"and the socket could not be made to go on: {exc}")


def size(source: Ici | HasFileno) -> int:
    """Bytes of the image of *source*: of an ICI exactly (paper 3.2), of a socket :func:`max_size`."""
    return codec.size(source) if isinstance(source, Ici) else max_size(source)


def max_size(sock: HasFileno) -> int:
    """What the image of *sock* would need if it was read now, in bytes; more may arrive until it is isolated.

    Source: paper 3.1 TCP_MAXICISIZE.
    :raises Unsupported: no TCP socket, or closed. :raises KernelError: one that listens.
    """
    with ExitStack() as stack:
        plain = as_socket(sock, stack)
        inspection.require_tcp(plain)
        queues = tcp_repair.get_outq(plain) + tcp_repair.get_inq(plain)
        return IMAGE_OVERHEAD_BYTES + queues + len(socket_filter.get(plain))


def create(
    ici: Ici, *, sock: socket.socket | None = None, same_path: bool = False, isolate: bool = True
) -> socket.socket:
    """Rebuild the endpoint *ici* and leave it isolated, in repair mode.

    :param ici: from :func:`get`. It is looked at (paper 7.1) before any call is made for it.
    :param sock: a TCP socket of the right family to use, neither connected nor listening.
    :param same_path: the peer is reached as it was from the origin: start with the congestion window the
        connection had instead of a new one (paper 5).
    :param isolate: False when the caller holds the connection isolated already, by a filter that lets through what
        has the mark 0xC114 and keeps it from connection tracking (:mod:`tcpcp.endpoint.isolation`).
    :return: the socket; nothing has been sent. Its local address exists on this host. One that is made here is
        blocking. It stays isolated for a minute, as after :func:`get`.
    The local port (paper 2.1): the ICI's, as on the origin; or with ``ici.at(port=0)`` any free port; or
    where *sock* is bound already, its port and address, which is not 0.0.0.0 or ::, and the ICI's are ignored.
    The peer goes on talking to the old port and address, so with another one a translation is needed in the
    network: what the peer sends to the old end must arrive here at the new one, and what is sent from the new
    end must reach the peer as from the old one, from before :func:`activate` on until it ends; without connection
    tracking, which has seen no SYN (tests/lab/test_ports.py has the rules).

    :raises IciError: what is wrong with the ICI, in itself or on this host; nothing was tried.
    :raises Unsupported: *sock* is none of those; nothing was tried. Or a segment fed to this host, which some
        states need, does not arrive.
    :raises AlreadyGot: another thread, or another process that has it too, is creating a connection with *sock*;
        nothing was tried.
    :raises OtherNamespace: *sock* is of another network namespace; nothing was tried.
    :raises PermissionDenied: no CAP_NET_ADMIN, or for a half-closed connection no CAP_NET_RAW, or not in the
        first user namespace and the ICI needs that (docs/security.md, Privilege); nothing was tried.
    :raises PermissionDenied: no CAP_NET_BIND_SERVICE for a local port below net.ipv4.ip_unprivileged_port_start,
        1024 where nobody has changed it.
    :raises AddressInUse: the connection exists on this host, where it goes on, or its port is taken. Or one between
        the same two ends has ended here less than a minute ago (TIME_WAIT), *ici* has not, and there are no
        timestamps.
    :raises IsolationError: the filter could not be made; or another program, which has closed the connection's
        socket, isolates it still, and a filter of this host does not let it be told.
    :raises KernelError: naming the call. After any error: nothing was sent, a socket made here is closed and
        the connection not isolated; a socket given that was tried may be closed too.
    """
    return create_many([ici], socks=[sock], same_path=same_path, isolate=isolate)[0]


def create_many(
    icis: Iterable[Ici],
    *,
    socks: Iterable[socket.socket | None] | None = None,
    same_path: bool = False,
    isolate: bool = True,
) -> list[socket.socket]:
    """:func:`create` for several connections under one filter; all of them or, after an error, none."""
    icis = handed_in.listed(icis, "ICIs")
    whole.require(icis)
    given = handed_in.listed(socks) if socks is not None else [None] * len(icis)
    if len(given) != len(icis):
        raise WrongArgument(f"{len(given)} sockets for {len(icis)} ICIs")
    with Uninterrupted():
        return _create_all(icis, given, same_path, isolate)


def _create_all(
    icis: Sequence[Ici], given: Sequence[socket.socket | None], same_path: bool, isolate: bool
) -> list[socket.socket]:
    fresh = socket_options.fresh([ici.ipv6_socket for ici in icis], _named(icis))
    limits, namespace = _require(icis, given, same_path, {one.algorithm for one in fresh.values()})
    made: list[socket.socket] = []
    held: list[Holding] = []
    try:
        held = holding.claim([sock for sock in given if sock])
        with ExitStack() as stack:
            alone.require_fresh(icis, given, stack)
            stack.enter_context(InitialWindows(icis if same_path and not congestion.ready() else ()))
            for ici, sock in zip(icis, given, strict=True):
                made.append(builder.begin(ici, sock, limits=limits, fresh=fresh[ici.ipv6_socket]))
            held = _with_made(held, made, given)
            introducing = holding.introducing(namespace)
            for one in held:
                one.created = introducing
            flows = [Flow(_bound(*one), one[1].peer) for one in zip(made, icis, given, strict=True)]
            interfaces = [_interface(*one) for one in zip(made, icis, given, strict=True)]
            left = _hold_created(held, flows, interfaces, namespace) if isolate else []
            _complete_all(icis, made, flows, given, limits, same_path)
            if left:
                left_open.take_over(holding.table(namespace), left)
            _stand_still(made, held, icis, flows, namespace)
        holding.enter(held)
    except BaseException as exc:
        _discard_after(made, exc)
        _lift_after(held, exc)
        raise
    return made


def _with_made(
    held: Sequence[Holding], made: Sequence[socket.socket], given: Sequence[socket.socket | None]
) -> list[Holding]:
    """*held*, of those given, with those of what was made, in the order of *made*."""
    theirs = iter(held)
    ours = iter(holding.claim([sock for sock, one in zip(made, given, strict=True) if not one]))
    return [next(theirs if one else ours) for one in given]


def _named(icis: Sequence[Ici]) -> Set[str] | None:
    """Options that a fresh socket has to be asked for; None: all, which for many takes no longer."""
    return socket_options.decided(name for ici in icis for name in ici.options) if len(icis) < _FEW else None


def _bound(sock: socket.socket, ici: Ici, given: socket.socket | None) -> Endpoint:
    return ici.local if given is None and ici.local.port else socket_ends.local_end(sock)


def _interface(sock: socket.socket, ici: Ici, given: socket.socket | None) -> int:
    return diag.interface_of(sock) if ici.device or given is not None else 0


def _require(
    icis: Sequence[Ici], given: Sequence[socket.socket | None], same_path: bool, usual: Set[str]
) -> tuple[Limits, int]:
    """Refuse what cannot work or must not be tried; what this host can take, and the network namespace."""
    usable = [handed_in.require_fresh(sock, ici) for ici, sock in zip(icis, given, strict=True) if sock]
    bound = [sock is not None and sock.getsockname()[1] != 0 for sock in given]
    limits = host.check(icis, bound=bound, usual=usual)
    namespace = host.require_repair()
    host.require_namespace(usable, namespace)
    first_namespace.require(icis)
    if any(map(feeding.feeds, icis)):
        host.require_raw()
    if same_path or any(ici.negotiated.ecn for ici in icis):
        congestion.prepare()
    if any(map(asking.may_ask, icis)):
        fields.prepare()
    return limits, namespace


def _hold_created(
    held: Sequence[Holding], flows: Sequence[Flow], interfaces: Sequence[int], namespace: int
) -> list[Flow]:
    """Isolate *flows*; what was isolated already stays so, should this come to nothing.

    :return: those that are to be taken over from another program.
    """
    table = holding.table(namespace)
    left = left_open.find(table, flows)
    connecting.require_free(flows, interfaces)
    holding.isolate(held, flows, table)
    return left


def _complete_all(
    icis: Sequence[Ici],
    made: Sequence[socket.socket],
    flows: Sequence[Flow],
    given: Sequence[socket.socket | None],
    limits: Limits,
    same_path: bool,
) -> None:
    """Where a segment fed for the sake of speed does not arrive, those of the others would not either."""
    with raw_segment.keeping():
        may_feed = raw_segment.namespace(socket.AF_INET) is not None
        for ici, sock, flow, one in zip(icis, made, flows, given, strict=True):
            heard = builder.complete(
                sock,
                ici,
                limits=limits,
                same_path=same_path,
                may_feed=may_feed,
                local=flow.local,
                given=one is not None,
            )
            may_feed = may_feed and heard


def _discard_after(made: Iterable[socket.socket], error: BaseException) -> None:
    for one in made:
        try:
            repair_mode.discard(one)
        except TcpcpError as exc:
            error.add_note(f"and a socket made for it could not be ended: {exc}")


def _lift_after(held: Sequence[Holding], error: BaseException) -> None:
    """Undo what :func:`tcpcp.endpoint.holding.isolate` did, as far as it went."""
    try:
        holding.undo(held)
    except TcpcpError as exc:
        error.add_note(f"and the isolation could not be lifted: {exc}; it runs out by itself")


def activate(sock: HasFileno) -> None:
    """Let the endpoint run: lift its isolation, leave repair mode, wake the peer.

    Where this host tracks connections it gets to know one that was created, as if it had been here from the
    begin, also when it was here once and comes back (:mod:`tcpcp.kernel.tracking`): its firewall takes it for
    established.

    :param sock: from :func:`create`, or from :func:`get` to take it back with a wake-up.
    :raises NotGot: it is from neither, or runs already; or another thread is at it still, or quicker to let it go.
    :raises Unsupported: it is closed, or no socket; nothing has changed.
    :raises IsolationError, PermissionDenied: nothing has changed.
    :raises Expired: its isolation has run out, so that both hosts may have answered; nothing has changed.
        :func:`resume` lets it run all the same.
    :raises KernelError: EMFILE, there is no descriptor left to wake the peer with; nothing has changed. Else the
        socket is still in repair mode, and no longer isolated.
    """
    activate_many([sock])


def activate_many(socks: Iterable[HasFileno], *, introduce: bool = True) -> None:
    """:func:`activate` for several sockets, their filters lifted first; an error stops at its socket.

    :param introduce: False: this host's firewall is to decide on the connections as on any that begin; on one
        that it knows already, as it did.
    """
    with Uninterrupted(), ExitStack() as stack:
        plain = [as_socket(sock, stack) for sock in handed_in.listed(socks)]
        held = stack.enter_context(holding.letting_go(plain))
        with raw_segment.keeping():
            waking.prepare(one.known for one in held)
            holding.introduce(held, new=introduce)
            not_by_us = any(one.known and one.flow is None for one in held)
            holding.let_through(held)
            with untracked.while_fed() if not_by_us else contextlib.nullcontext(True) as unseen:
                for sock, one in zip(plain, held, strict=True):
                    running.activate(sock, one, unseen=unseen)


def resume(sock: HasFileno) -> None:
    """Undo :func:`get`: lift the isolation and leave repair mode. Nothing is sent for its own sake.

    Except that after a second and more what is not acknowledged is sent again at once, or asked for with a window
    probe; the kernel would wait as long again. And that where bytes wait for a window which is shut, the peer
    is asked with a window probe: should it have opened the window meanwhile, it has said so once
    (:mod:`tcpcp.endpoint.asking`). What the peer sent meanwhile it sends again by its own timer, which may take as
    long again, or 3 s where it has measured no round trip yet, and which nobody but the peer can shorten
    (:mod:`tcpcp.endpoint.waking`). A reset it does not send again: who waits to be sent something by a peer that
    has reset the connection in this time waits for ever, without keepalive. :func:`activate` has the peer hear of
    us, and so gets to know; but of a half-closed connection that is bound to an interface, to which nothing can be
    fed.

    An option that was set meanwhile stays, but for SO_KEEPALIVE, which is on again if it was.

    :raises NotGot: it was not got, or runs already; or another thread is at it still, or quicker to let it go.
    :raises Unsupported: it is closed, or no socket; nothing has changed.
    :raises IsolationError, PermissionDenied: nothing has changed.
    :raises Expired: the isolation had run out before. The socket runs; an ICI that was read from it does not
        describe it any more, and must not be used.
    :raises KernelError: the socket is still in repair mode, and no longer isolated.
    """
    resume_many([sock])


def resume_many(socks: Sequence[HasFileno]) -> None:
    """:func:`resume` for several sockets, their filters lifted first; the first error is raised at the end."""
    with Uninterrupted(), ExitStack() as stack:
        plain = [as_socket(sock, stack) for sock in handed_in.listed(socks)]
        held = stack.enter_context(holding.letting_go(plain))
        expired = holding.let_all_through(held)
        first: TcpcpError | None = None
        stack.enter_context(raw_segment.keeping())
        for sock, one in zip(plain, held, strict=True):
            try:
                running.resume(sock, one)
            except TcpcpError as exc:
                first = first or exc
    if first is not None:
        raise first
    if expired:
        raise holding.ran_out(expired)


def renew(sock: HasFileno) -> None:
    """Keep *sock*, which was got or created, isolated for another minute from now on.

    :raises NotGot: it was neither, or another thread is at it still.
    :raises Unsupported: it is closed, or no socket.
    :raises IsolationError, PermissionDenied: nothing has changed.
    :raises Expired: the isolation has run out already: see :func:`get`.
    """
    renew_many([sock])


def renew_many(socks: Sequence[HasFileno]) -> None:
    """:func:`renew` for several sockets; after ``Expired`` those that it does not name are renewed."""
    with Uninterrupted(), ExitStack() as stack:
        holding.renew(holding.find([as_socket(sock, stack) for sock in handed_in.listed(socks)]))


def release(sock: HasFileno) -> None:
    """Drop the endpoint: end its connection without a packet, whoever else holds the socket, and close *sock*.

    An option that was set since :func:`get` began may be missing in the ICI: nobody looks for it, and it is lost
    without a word. Set it before, or on the new socket.

    A late segment for a connection without a socket would draw a reset; for a minute from now on the filter
    catches those. What has a ``fileno()`` and no ``close()``, or one that raises an error, as that of uvloop's
    sockets does, is left open, as a socket without a connection. Whoever else holds the socket gets ECONNABORTED
    once, then ENOTCONN (EPIPE where it sends); a thread that waits wakes, in recv() with EPIPE.

    A new connection between the same two addresses and ports works at once, whoever begins it, where the kernel has
    the module nft_socket; without it, it is met with the same silence for that minute.

    But where this host had begun the connection, it may choose the same port again for its next connect() to the
    same server, which has the connection that lives elsewhere now, and so does not take another one: connect()
    meets silence, and after the minute it *ends that connection*, by the reset with which the kernel answers what
    the server says of it. Who passes such connections on, a proxy's to its database, keeps another socket bound
    to their local address and port, no more, as long as they live: then connect() chooses other ports.

    :raises NotGot: it was neither got nor created, or runs again; or another thread is at it still, or quicker to
        let it go.
    :raises Unsupported: it is closed, as after the first release, or no socket; nothing has changed.
    :raises Expired: its isolation has run out, so that this host may have acknowledged what the ICI does not
        have; nothing has changed. :func:`resume` goes on with the connection here.
    :raises Moved: likewise (it is an ``Expired``), for a thread has read from it or written to it since, or the
        program has shut it down: see :func:`get`. Or, and then its ``lost_bytes`` is not 0, a thread in the middle
        of send() was quicker than the end itself: the connection has ended here, and these bytes are lost.
    :raises IsolationError, PermissionDenied: nothing has changed.
    :raises KernelError: the socket is open still.
    """
    release_many([sock])


def release_many(socks: Iterable[HasFileno]) -> None:
    """:func:`release` for several sockets; the first error of those that could not be ended is raised last."""
    socks = handed_in.listed(socks)
    with Uninterrupted(), ExitStack() as stack:
        plain = [as_socket(sock, stack) for sock in handed_in.listed(socks)]
        held = stack.enter_context(holding.letting_go(plain))
        holding.renew(held)
        moved.require_unmoved(plain, held)
        gone: list[Holding] = []
        first: TcpcpError | None = None
        for given, sock, one in zip(socks, plain, held, strict=True):
            try:
                moved.require_unmoved([sock], [one])  # again: those before it took their time
                # Isolated until it is gone: its timers would send.
                late = repair_mode.discard(sock, one.write_seq)
            except TcpcpError as exc:
                first = first or exc
                continue
            gone.append(one)
            if late:
                first = first or _lost(one, late)
            if given is not sock:
                _close(given)
        holding.pass_on(gone)
        holding.drop(gone)
    if first is not None:
        raise first


def _lost(one: Holding, count: int) -> Moved:
    name = f"{one.known.local} - {one.known.peer}" if one.known else "a socket"
    return Moved(
        f"{name}: {count} bytes that a thread has written in the moment in which its connection was ended here (an "
        "end of the stream counts as one) are lost: the ICI does not have them, and there is nothing to resume",
        count,
    )


def _close(given: HasFileno) -> None:
    """Its connection has ended already, so whatever its own way to be closed does is no reason to stop."""
    close = getattr(given, "close", None)
    if close is not None:
        with contextlib.suppress(Exception):
            close()
