"""A connection without a packet: bound, connected in repair mode, and what the handshake agreed on."""

from __future__ import annotations

import contextlib
import errno
import math
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache

from tcpcp.endpoint import feeding, socket_ends
from tcpcp.endpoint.isolation import Flow
from tcpcp.errors import AddressInUse, KernelError, Unsupported, no_bind_service
from tcpcp.kernel import diag, tcp_repair
from tcpcp.kernel.tcp_repair import RECV_QUEUE, SEND_QUEUE, TCP, TCP_MAXSEG
from tcpcp.record import seq
from tcpcp.record.ici import Endpoint, Ici, Negotiated, State
from tcpcp.record.option_names import OPTIONS

#: What connect() was told is not for what comes after.
_ROUTES_MSS: tcp_repair.Setting = (TCP, TCP_MAXSEG, 0, "TCP_MAXSEG")
#: What TCP_MAXSEG takes: TCP_MIN_MSS to MAX_TCP_WINDOW (include/net/tcp.h).
_SETTABLE_MSS = range(88, 32768)
#: What the kernel guesses at most (TCP_MSS_DEFAULT), and how long timestamps are in a segment.
_LARGEST_GUESS, _STAMPS_BYTES = 536, 12


def bind(sock: socket.socket, ici: Ici) -> None:
    """To the local end of *ici*.

    A listener takes connections to every address that a local route leads to, whole prefixes of them; bind() does
    so too with IPv4, but with IPv6 only to an address of an interface (net/ipv6/af_inet6.c __inet6_bind()).
    """
    try:
        _call("bind", sock, sock.bind, _sockaddr(ici, ici.local))
    except KernelError as exc:
        if exc.errno != errno.EADDRNOTAVAIL or ici.local.ip.version == 4:
            raise
        freebind = OPTIONS["IPV6_FREEBIND"]
        tcp_repair.set_int(sock, freebind.level, freebind.number, 1, freebind.name)
        _call("bind", sock, sock.bind, _sockaddr(ici, ici.local))
        tcp_repair.set_int(sock, freebind.level, freebind.number, 0, freebind.name)


class Naming:
    """Errors say which connection it is: a socket that is not connected yet cannot.

    A class, because a generator would take 1 us of each connection's time.
    """

    __slots__ = ("_ici",)

    def __init__(self, ici: Ici) -> None:
        self._ici = ici

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KernelError):
            raise KernelError(error.call, error.errno, str(self._ici)) from error
        if isinstance(error, OSError):
            raise KernelError("if_nametoindex", error.errno or errno.ENODEV, str(self._ici)) from error


def require_free(flows: Sequence[Flow], interfaces: Sequence[int]) -> None:
    """Make sure that no socket has the ends of *flows* yet: to isolate these would be to cut off that one.

    Where the kernel does not tell, or another gets them in between, connect() says it, when they are isolated.

    :param interfaces: those that the sockets to be connected are bound to, or 0.
    :raises AddressInUse: one has.
    """
    with contextlib.suppress(KernelError):
        ends = [((one.local.packed, one.local.port), (one.peer.packed, one.peer.port)) for one in flows]
        if taken := diag.connected(list(zip(ends, interfaces, strict=True))):
            raise AddressInUse(f"{flows[taken[0]]}: the connection exists on this host")


def connect(sock: socket.socket, ici: Ici, local: Endpoint, *, extra_bytes: int) -> None:
    """All that is decided by connect(); then the connection exists, and its queues are empty.

    :param local: where *sock* is bound.
    """
    announced = max(ici.negotiated.advmss, _SETTABLE_MSS.start)
    if announced not in _SETTABLE_MSS:
        announced = 0
    settings = (
        tcp_repair.QUEUES[SEND_QUEUE],
        tcp_repair.queue_seq(seq.add(feeding.first_to_send(ici), -extra_bytes)),
        # The receive queue second: with the send queue selected, whatever the kernel sends counts as sent.
        tcp_repair.QUEUES[RECV_QUEUE],
        tcp_repair.queue_seq(ici.copied_seq),
        _guessing_window(ici),
        # connect() takes the smaller of this and the route's for advmss (tcp_connect_init()).
        (TCP, TCP_MAXSEG, announced, "TCP_MAXSEG"),
    )
    tcp_repair.set_each(sock, settings)
    try:
        _call("connect", sock, sock.connect, _sockaddr(ici, ici.peer))
    except AddressInUse as exc:
        _make_room(sock, ici, local, exc)
        _call("connect", sock, sock.connect, _sockaddr(ici, ici.peer))
    require_ends(sock, ici, local)


def take_apart(sock: socket.socket) -> None:
    """Undo :func:`connect` and what came after it: *sock* stays bound, in repair mode, and has no queues.

    For its connection, which nobody has heard of, to be made anew. Options stay.
    """
    tcp_repair.disconnect(sock)
    # ECONNABORTED (net/ipv4/tcp.c tcp_disconnect()), which asking clears.
    tcp_repair.get_int(sock, socket.SOL_SOCKET, socket.SO_ERROR, "SO_ERROR")


def _make_room(sock: socket.socket, ici: Ici, local: Endpoint, error: AddressInUse) -> None:
    """Have the kernel forget that the connection has ended here, so that *sock* can become what is left of it.

    With timestamps connect() takes the place of a TIME_WAIT by itself (net/ipv4/tcp_ipv4.c tcp_twsk_unique()).
    Without them only what has ended itself may, for that TIME_WAIT is its own. Should the peer repeat its FIN,
    nobody acknowledges it then, as nobody does on another host. A connection that runs is another one than that
    which ended here, or its ICI is of before the end; nothing tells which.

    :raises AddressInUse: it does not, or must not; says why *sock* cannot connect.
    """
    ends = (local.packed, local.port), (ici.peer.packed, ici.peer.port)
    try:
        found = diag.lingering(sock, ends)
        if found and ici.state is State.CLOSE:
            diag.forget((ends, diag.interface_of(sock)), found)
            return
    except KernelError as exc:
        if exc.errno in diag.NOT_IN_TABLE:  # this moment
            return
    if found is None:
        raise error
    raise AddressInUse(
        f"{ici}: a connection with the same two ends has ended on this host, which remembers that for"
        f" {math.ceil(found.left_s)} s more (TIME_WAIT)"
    ) from error


def require_ends(sock: socket.socket, ici: Ici, local: Endpoint) -> None:
    """Make sure that *sock* has the end *local* and the peer of *ici*, of which BPF may have made others.

    A program of the control group may take bind() and connect() elsewhere (BPF_CGROUP_INET4_CONNECT). What is sent
    would go to somebody else, and what the peer sends would be reset. Such a program may also make up what is said
    of a socket, so only where the one or the other is different the kernel's table is asked.

    :raises Unsupported: it has others.
    """
    found = socket_ends.local_end(sock), socket_ends.peer_end(sock)
    wanted = local if any(local.packed) else found[0], ici.peer
    if found == wanted:
        return
    try:
        diag.one(sock, ((local.packed, local.port), (ici.peer.packed, ici.peer.port)))
    except KernelError as exc:
        if exc.errno not in diag.NOT_IN_TABLE:
            raise
        raise Unsupported(
            f"{ici}: bind() or connect() led elsewhere, to {found[0]} and {found[1]}: a BPF program of this "
            "program's control group does that (bpftool cgroup tree); create it in another group"
        ) from None


def _guessing_window(ici: Ici) -> tcp_repair.Setting:
    """For connect(), which sets another, but first guesses from half of this how large the peer's segments are.

    Where there is none it takes 88 bytes, and the first segment that is larger than the guess is what the kernel
    computes from how much of a buffer is window (tcp_initialize_rcv_mss(), tcp_measure_rcv_mss()): after a
    request of 200 bytes a third of the window would be left. This is the guess after a handshake: as much as
    we may send, 536 at most. What has been measured since is measured again.
    """
    largest = ici.negotiated.mss_clamp - _STAMPS_BYTES * ici.negotiated.timestamps
    room = 2 * max(1, min(largest, _LARGEST_GUESS))
    return tcp_repair.window_of(ici.copied_seq, 0, 0, room, ici.copied_seq)


def bind_to_device(sock: socket.socket, name: str) -> None:
    """To the interface *name*; "" for none."""
    tcp_repair.set_bytes(
        sock, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0", "SO_BINDTODEVICE"
    )  # fmt: skip


def choose_congestion(sock: socket.socket, ici: Ici) -> None:
    """That of *ici*; a route may have one that it locks, which is this host's to decide."""
    wanted = ici.congestion.algorithm
    if not wanted or tcp_repair.get_congestion(sock) == wanted:
        return
    try:
        tcp_repair.set_congestion(sock, wanted)
    except KernelError as exc:
        if exc.errno != errno.EPERM:
            raise


_Address = tuple[str, int] | tuple[str, int, int, int]


def _sockaddr(ici: Ici, end: Endpoint) -> _Address:
    if not ici.ipv6_socket:
        return socket.inet_ntoa(end.packed), end.port  # str(end.ip) takes five times as long
    if end.ip.version == 4:
        return f"::ffff:{end.ip}", end.port, 0, 0
    scope = socket.if_nametoindex(ici.device) if ici.device and end.ip.is_link_local else 0
    return str(end.ip), end.port, 0, scope


def _call(name: str, sock: socket.socket, call: Callable[[_Address], None], address: _Address) -> None:
    try:
        call(address)
    except OSError as exc:
        if name == "bind" and exc.errno == errno.EACCES:
            raise no_bind_service(address[1]) from exc
        # connect() says EADDRNOTAVAIL where the connection exists (__inet_check_established()).
        if exc.errno == errno.EADDRINUSE or (name == "connect" and exc.errno == errno.EADDRNOTAVAIL):
            ends = f"{tcp_repair.describe(sock)}: {name} {address[0]} port {address[1]}"
            raise AddressInUse(f"{ends}: the connection exists on this host, or its port is taken") from exc
        raise tcp_repair.failed(name, sock, exc) from exc


def negotiate(sock: socket.socket, ici: Ici) -> None:
    """What the handshake fixed, which there has not been; and where the clock of timestamps begins."""
    settings = [_ROUTES_MSS, tcp_repair.negotiated(_agreed(ici.negotiated))]
    # Else nothing is cut into segments before the size is set.
    if ici.send_queue.sent or ici.send_queue.unsent:
        settings += tcp_repair.RESIZING[ici.local.ip.version == 6]
    if ici.timestamp is not None:
        settings.append(tcp_repair.timestamp(ici.timestamp.value))
    tcp_repair.set_each(sock, settings)


@lru_cache(256)  # the handshakes of most connections of a server agree on the same
def _agreed(agreed: Negotiated) -> list[tuple[int, int]]:
    # The window's shift always: connect() in repair mode has computed one from this host's settings, and
    # without the option it stays, unseen by TCP_INFO (tcp_connect_init(), tcp_repair_options_est()).
    shifts = agreed.snd_wscale | agreed.rcv_wscale << 16
    options = [(tcp_repair.OPT_MSS, agreed.mss_clamp), (tcp_repair.OPT_WINDOW, shifts)]
    if agreed.sack:
        options.append((tcp_repair.OPT_SACK, 0))
    if agreed.timestamps:
        options.append((tcp_repair.OPT_TIMESTAMP, 0))
    return options
