"""Whether a socket can be passed, and what of it only its owner changes: stage one of `reader`."""

from __future__ import annotations

import errno
import ipaddress
import select
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from tcpcp import socket_filter, socket_options, tcp_repair
from tcpcp.errors import KernelError, Unsupported
from tcpcp.ici import Endpoint, State
from tcpcp.tcp_repair import TCP

#: States that an ICI can describe and `create` can rebuild. Not SYN_SENT: no call sets the time at which the
#: SYN was sent, against which the kernel checks the answer's timestamp (tests/facts/test_syn_sent.py).
READABLE = frozenset(
    {
        State.ESTABLISHED,
        State.FIN_WAIT1,
        State.FIN_WAIT2,
        State.CLOSE_WAIT,
        State.LAST_ACK,
        State.CLOSING,
        State.CLOSE,
    }
)
#: What this kernel has not got.
_absent: set[str] = set()
#: include/uapi/asm-generic/socket.h SO_TYPE, SO_DOMAIN, SO_PROTOCOL.
_WHAT_IT_IS = ((3, "SO_TYPE"), (39, "SO_DOMAIN"), (38, "SO_PROTOCOL"))
#: Lengths of struct sockaddr_in and sockaddr_in6, and where the address is in them.
_SOCKADDR = {socket.AF_INET: (16, slice(4, 8)), socket.AF_INET6: (28, slice(8, 24))}


class Prepared(NamedTuple):
    """What :func:`prepare` reads of a socket: only its owner changes that.

    :ivar closed: the state is CLOSE: there is no connection any more, only bytes to be read.
    :ivar cookie: the kernel's name for the socket (SO_COOKIE), for :mod:`tcpcp.kernel_fields`.
    """

    local: Endpoint
    peer: Endpoint
    closed: bool
    options: dict[str, int]
    algorithm: str
    device: str
    socket_filter: bytes
    ipv6_socket: bool
    cookie: int = 0


def prepare(sock: socket.socket) -> Prepared:
    """Check that *sock* can be passed, and read what packets do not change. It may be in use.

    :param sock: as for :func:`inspect`.
    :return: for :func:`read`; nobody may set an option of the socket in between.
    :raises Unsupported, KernelError: as :func:`inspect`.
    """
    return prepare_many([sock])[0]


def prepare_many(socks: Sequence[socket.socket]) -> list[Prepared]:
    """:func:`prepare` for several sockets.

    :raises Unsupported, KernelError: of the first that cannot be passed; nothing has changed.
    """
    for sock in socks:
        _check(sock)
    _check_urgent(socks)
    return [_prepare(sock) for sock in socks]


def _prepare(sock: socket.socket) -> Prepared:
    local, peer, closed = ends(sock)
    ipv6_only = local.ip.version == 6
    options = socket_options.read_all(sock, ipv6_only=ipv6_only, connected=True)
    algorithm = tcp_repair.get_congestion(sock)
    ipv6_socket = ipv6_only or sock.family == socket.AF_INET6
    return Prepared(
        local,
        peer,
        closed,
        options,
        algorithm,
        _device(sock),
        socket_filter.get(sock),
        ipv6_socket,
        tcp_repair.get_cookie(sock),
    )


def ends(sock: socket.socket) -> tuple[Endpoint, Endpoint, bool]:
    """Both ends of *sock*, and whether its connection is closed.

    :raises KernelError: ENOTCONN, it never had one.
    """
    local = local_end(sock)
    try:
        return local, _endpoint(sock.getpeername()), False
    except OSError:
        return local, last_peer(sock), True


def local_end(sock: socket.socket) -> Endpoint:
    """Where *sock* is bound."""
    try:
        return _endpoint(sock.getsockname())
    except OSError as exc:
        raise tcp_repair.failed("getsockname", sock, exc) from exc


def last_peer(sock: socket.socket) -> Endpoint:
    """The far end of *sock*, also after the connection has been closed, when getpeername() is refused.

    :raises KernelError: ENOTCONN, it never had one.
    Source: net/ipv4/af_inet.c inet_getname(), net/core/sock.c sk_getsockopt() SO_PEERNAME.
    """
    length, where = _SOCKADDR[sock.family]
    raw = tcp_repair.get_bytes(sock, socket.SOL_SOCKET, tcp_repair.SO_PEERNAME, length, "SO_PEERNAME")
    return _endpoint((socket.inet_ntop(sock.family, raw[where]), int.from_bytes(raw[2:4], "big")))


def inspect(sock: socket.socket) -> None:
    """Check that *sock* can be passed. Changes nothing and works on a socket in use.

    :param sock: a TCP socket, connected; not in repair mode.
    :raises Unsupported: it is MPTCP, has kTLS or another upper layer protocol, TCP-AO, urgent data not yet
        read, or is in a state that an ICI does not describe. TCP-MD5 shows only in :mod:`tcpcp.diag`.
    :raises KernelError: it is not a socket that can be asked.
    """
    _check(sock)
    _check_urgent([sock])


def _check(sock: socket.socket) -> None:
    # Not sock.type: what makes an enum of it takes longer than the kernel.
    kind, family, protocol = (
        tcp_repair.get_int(sock, socket.SOL_SOCKET, option, name) for option, name in _WHAT_IT_IS
    )
    if kind != socket.SOCK_STREAM or family not in (socket.AF_INET, socket.AF_INET6):
        raise Unsupported(f"not a TCP socket: {sock.family.name}, {sock.type.name}")
    if protocol == tcp_repair.IPPROTO_MPTCP:
        raise Unsupported("Multipath TCP refuses repair mode; let the program use plain TCP")
    if protocol != socket.IPPROTO_TCP:
        raise Unsupported(f"not a TCP socket: protocol {protocol}")
    state = tcp_repair.get_state(sock)
    check_state(sock, state)
    if state == State.CLOSE:
        _check_closed(sock)
    _check_protocols(sock)


def _check_closed(sock: socket.socket) -> None:
    """A socket without a connection is passed only if both sides have closed it in order."""
    try:
        last_peer(sock)
    except KernelError:
        raise Unsupported("not connected, and never was: there is no connection to pass") from None
    poll = select.poll()
    poll.register(sock, 0)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        raise Unsupported(f"{_name(sock)}: reset or timed out, and the application has not been told yet")


def _check_protocols(sock: socket.socket) -> None:
    if ulp := tcp_repair.get_ulp(sock):
        raise Unsupported(f"{_name(sock)}: protocol {ulp} above TCP: its keys cannot be read from the kernel")
    if _has_ao(sock):
        raise Unsupported(f"{_name(sock)}: TCP-AO: its keys cannot be read from the kernel")


def has_urgent(socks: Sequence[socket.socket]) -> list[socket.socket]:
    """Those of *socks* for which urgent data has arrived and is not yet read.

    Not seen: a mark ahead in the stream whose byte was read with MSG_OOB. :func:`tcpcp.reader.read` sees it.
    """
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLPRI)
    urgent = {number for number, events in poll.poll(0) if events & select.POLLPRI}  # POLLHUP comes unasked
    return [sock for sock in socks if sock.fileno() in urgent or tcp_repair.at_mark(sock)]


def _check_urgent(socks: Sequence[socket.socket]) -> None:
    for sock in has_urgent(socks):
        raise Unsupported(f"{_name(sock)}: urgent data is waiting to be read; try again when it has been")


def _has_ao(sock: socket.socket) -> bool:
    """Unlike the information itself, the reason why there is none does not depend on the struct's size."""
    if "TCP_AO" in _absent:
        return False
    try:
        sock.getsockopt(TCP, tcp_repair.TCP_AO_INFO, 64)
    except OSError as exc:
        if exc.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            _absent.add("TCP_AO")  # a kernel without it need not be asked for every socket
        return exc.errno == errno.EINVAL
    return True


def _name(sock: socket.socket) -> str:
    return tcp_repair.describe(sock)


def check_state(sock: socket.socket, state: int) -> None:
    """Refuse a state of :class:`tcpcp.ici.State` that an ICI does not describe."""
    if state not in READABLE:
        raise Unsupported(f"{_name(sock)}: state {State(state).name} cannot be passed")


def _device(sock: socket.socket) -> str:
    raw = tcp_repair.get_bytes(sock, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16, "SO_BINDTODEVICE")
    return raw.split(b"\0", 1)[0].decode()


@lru_cache(65536)
def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address written as *text* by the kernel; an IPv4-mapped one as IPv4."""
    if ":" not in text:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    ip = ipaddress.IPv6Address(text.split("%", 1)[0])
    return ip.ipv4_mapped or ip


@lru_cache(65536)
def _endpoint_of(host: str, port: int) -> Endpoint:
    return Endpoint(address(host), port)


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    return _endpoint_of(name[0], name[1])
