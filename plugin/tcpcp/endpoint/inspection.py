"""Whether a socket can be passed, and what of it only its owner changes: stage one of `reader`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import ipaddress
import os
import select
import socket
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from tcpcp.endpoint import fingerprint, socket_options
from tcpcp.errors import AlreadyGot, KernelError, Unsupported
from tcpcp.kernel import fields, socket_filter, tcp_repair
from tcpcp.kernel.fields import Seen
from tcpcp.kernel.tcp_repair import TCP
from tcpcp.record import addresses, option_names
from tcpcp.record.ici import FIN_IN, Endpoint, Ici, State

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
_REMEDIES = {
    State.SYN_SENT: "; let it connect first, or connect anew at the destination",
    State.SYN_RECV: "; its handshake is not over (TCP Fast Open): try again when it is",
    State.LISTEN: "; listen at the destination too, and pass what tcpcp.drain() accepts here",
}
#: What this kernel has not got.
_absent: set[str] = set()
#: include/uapi/asm-generic/socket.h SO_TYPE, SO_DOMAIN, SO_PROTOCOL.
_WHAT_IT_IS = ((3, "SO_TYPE"), (39, "SO_DOMAIN"), (38, "SO_PROTOCOL"))
#: Lengths of struct sockaddr_in and sockaddr_in6, and where the address is in them.
_SOCKADDR = {socket.AF_INET: (16, slice(4, 8)), socket.AF_INET6: (28, slice(8, 24))}


#: Slots of 8 bytes, each loaded as a number of its size and stored as one of 8: so where its bytes are depends.
_ENDS = struct.Struct(
    "=Q2sxxxxxx2sxxxxxx4sxxxx4sxxxx16s16s" if sys.byteorder == "little" else "=Q6x2s6x2s4x4s4x4s16s16s"
)


class Prepared(NamedTuple):
    """What :func:`prepare` reads of a socket: only its owner changes that.

    :ivar closed: the state is CLOSE: there is no connection any more, only bytes to be read.
    :ivar shut: shutdown(SHUT_RD) was called.
    """

    local: Endpoint
    peer: Endpoint
    closed: bool
    options: dict[str, int]
    algorithm: str
    device: str
    socket_filter: bytes
    ipv6_socket: bool
    shut: bool = False


def prepare(sock: socket.socket) -> Prepared:
    """Check that *sock* can be passed, and read what packets do not change. It may be in use.

    :param sock: as for :func:`inspect`.
    :return: for :func:`read`; nobody may set an option of the socket in between.
    :raises Unsupported, KernelError: as :func:`inspect`.
    """
    return prepare_many([sock])[0]


def prepare_many(socks: Sequence[socket.socket], seen: Sequence[Seen | None] | None = None) -> list[Prepared]:
    """:func:`prepare` for several sockets, all of the same network namespace.

    :param seen: what :func:`tcpcp.kernel.fields.look` says of each, if it was asked just before.
    :raises Unsupported, KernelError: of the first that cannot be passed; nothing has changed.
    """
    looks = fields.look(socks) if seen is None else seen
    if not any(looks):
        return _prepare_asking(socks)
    alike: dict[_Kind, Prepared] = {}
    return [_prepare_as_seen(sock, look, alike) for sock, look in zip(socks, looks, strict=True)]


#: IP version, and :attr:`tcpcp.kernel.fields.Seen.settings`.
_Kind = tuple[int, bytes]
#: Kinds that this process has met, with the first that was asked of each; so many at most.
_met: dict[_Kind, Prepared] = {}
_MOST_MET = 256


def _prepare_as_seen(sock: socket.socket, seen: Seen | None, alike: dict[_Kind, Prepared]) -> Prepared:
    """*sock* is not asked where one of its kind has been: what is true of that one is true of it."""
    both = ends_in(seen.ends) if seen else None
    if seen is None or both is None:
        return _prepare_asking([sock])[0]
    local, peer = both
    kind = local.ip.version, seen.settings
    known = alike.get(kind)
    if known is None:
        known = _met.get(kind)
        if known is None:
            return _meet(sock, seen, kind, alike, both)
        known = alike[kind] = _as_it_is_now(sock, known)
    options = socket_options.read_counted(sock, known.options, ipv6_socket=known.ipv6_socket)
    return Prepared(local, peer, False, options, known.algorithm, known.device, b"", known.ipv6_socket)


def _meet(
    sock: socket.socket,
    seen: Seen,
    kind: _Kind,
    alike: dict[_Kind, Prepared],
    both: tuple[Endpoint, Endpoint],
) -> Prepared:
    """The first of its kind.

    Its ends are *both*, those of its packets: what getpeername() says a control group's BPF program may have made
    up, as those do that balance loads without translating packets (net/ipv4/af_inet.c inet_getname()).
    """
    (found,) = _prepare_asking([sock])
    if not found.closed:
        found = found._replace(local=both[0], peer=both[1])
    if _has_a_kind(seen, found) and fingerprint.tells_options_apart(sock.family):
        if len(_met) >= _MOST_MET:
            _met.clear()
        alike[kind] = _met[kind] = found
    return found


def _as_it_is_now(sock: socket.socket, known: Prepared) -> Prepared:
    """What was asked of another one some time ago: what is not in the socket itself may be otherwise by now.

    That is what a sysctl decides, and what an interface or a congestion control is called.
    """
    options = socket_options.read_decided(sock, known.options)
    _require_passable(sock, options, known.ipv6_socket)
    return known._replace(
        options=options,
        algorithm=tcp_repair.get_congestion(sock),
        device=device(sock),
    )


def _has_a_kind(seen: Seen, found: Prepared) -> bool:
    """Nothing of it is its own."""
    return not (fields.is_special(seen) or found.closed or found.shut or found.socket_filter)


def _prepare_asking(socks: Sequence[socket.socket]) -> list[Prepared]:
    for sock in socks:
        _check(sock)
    _check_fields(socks)
    events = _events(socks)
    _check_events(socks, events)
    return [_prepare(sock, _is_shut(sock, events)) for sock in socks]


def _check_fields(socks: Sequence[socket.socket]) -> None:
    for sock, why in zip(socks, fields.refused(socks), strict=True):
        if why:
            raise Unsupported(f"{_name(sock)}: {why}")


def check_listener(sock: socket.socket) -> None:
    """Refuse a listener with something that its connections would have to have too.

    :raises Unsupported: it has keys of TCP-MD5 or TCP-AO, or an IPsec policy of its own, as far as BPF tells.
    """
    if why := fields.read([sock])[0].refused:
        raise Unsupported(f"{_name(sock)}: {why}")


def _is_shut(sock: socket.socket, events: Mapping[int, int]) -> bool:
    """Whether the application shut its reading; once the peer has sent a FIN, that is the same."""
    hung_up = events.get(sock.fileno(), 0) & select.POLLRDHUP
    return bool(hung_up) and tcp_repair.get_state(sock) not in FIN_IN


def _prepare(sock: socket.socket, shut: bool) -> Prepared:
    local, peer, closed = ends(sock)
    ipv6_only = local.ip.version == 6
    ipv6_socket = ipv6_only or sock.family == socket.AF_INET6
    options = socket_options.read_all(sock, ipv6_only=ipv6_only, connected=True)
    _require_passable(sock, options, ipv6_socket)
    algorithm = tcp_repair.get_congestion(sock)
    return Prepared(
        local,
        peer,
        closed,
        options,
        algorithm,
        device(sock),
        socket_filter.get(sock),
        ipv6_socket,
        shut,
    )


def _require_passable(sock: socket.socket, options: Mapping[str, int], ipv6_socket: bool) -> None:
    """Refuse here what `create` would, when it is too late to go on here."""
    if found := option_names.problems(options, ipv6_socket=ipv6_socket):
        raise Unsupported(f"{_name(sock)}: no kernel known reports such options: {'; '.join(found)}")


def ends(sock: socket.socket) -> tuple[Endpoint, Endpoint, bool]:
    """Both ends of *sock*, and whether its connection is closed.

    :raises KernelError: ENOTCONN, it never had one.
    """
    local = local_end(sock)
    try:
        return local, _endpoint(sock.getpeername()), False
    except OSError:
        return local, last_peer(sock), True


@lru_cache(65536)
def ends_in(raw: bytes) -> tuple[Endpoint, Endpoint] | None:
    """Both ends, from :attr:`tcpcp.kernel.fields.Seen.ends`; None where the socket has no address of its own."""
    family, local_port, peer_port, local4, peer4, local6, peer6 = _ENDS.unpack(raw)
    mine, theirs = (local4, peer4) if family == socket.AF_INET else (local6, peer6)
    if not any(mine):
        return None
    return _end_in(mine, local_port), _end_in(theirs, peer_port)


def _end_in(ip: bytes, port: bytes) -> Endpoint:
    return Endpoint(addresses.address(ip), int.from_bytes(port, "big"))


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
    :raises Unsupported: it is MPTCP, has kTLS or another upper layer protocol, keys of TCP-MD5 or TCP-AO, an IPsec
        policy of its own (as far as BPF tells), urgent data or messages in its error queue not yet read, or is in
        a state that an ICI does not describe.
    :raises AlreadyGot: it is in repair mode.
    :raises KernelError: it is not a socket that can be asked.
    """
    _check(sock)
    _check_fields([sock])
    _check_events([sock], _events([sock]))


class HasFileno(Protocol):
    """A socket, or what stands for one: asyncio's TransportSocket, for example."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


def as_socket(given: HasFileno, stack: contextlib.ExitStack) -> socket.socket:
    """*given* as one of Python's sockets.

    :param stack: closes it at its end, where it is a duplicate.
    :raises Unsupported: it is closed, or no socket, or one that encrypts, or has a buffer of its own.
    :raises KernelError: there is no descriptor left for a duplicate.
    """
    ssl = sys.modules.get("ssl")  # who has not loaded it has no such socket
    if ssl is not None and isinstance(given, ssl.SSLSocket):
        raise Unsupported(
            f"{_name_of(given)}: TLS: its keys are in this process, and an ICI has none of them; end it with "
            "unwrap() and pass socket.socket(fileno=sock.detach()), or let a proxy encrypt (docs/tls.md)"
        )
    number = _descriptor(given)
    if isinstance(given, socket.socket):
        return given
    try:
        made = stack.enter_context(_duplicate(number))
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise KernelError("dup", exc.errno, f"descriptor {number}") from exc
        raise Unsupported(f"descriptor {number}: not a socket: {exc.strerror}") from exc
    if isinstance(given, (io.BufferedIOBase, io.TextIOBase)):  # as makefile() returns
        raise Unsupported(
            f"{_name(made)}: {type(given).__name__}: a file may have bytes in a buffer of its own, which an ICI "
            "has not; take what it has read ahead (peek()), or flush() what it has not written, close it, and "
            "pass the socket that it was made of"
        )
    return made


def require_no_files(given: HasFileno) -> None:
    """Refuse one of Python's sockets with open files made of it: nobody can see what they have in their buffers.

    :raises Unsupported: makefile() was called more often than such a file was closed.
    """
    files = getattr(given, "_io_refs", 0) if isinstance(given, socket.socket) else 0  # the only trace of them
    if files:
        raise Unsupported(
            f"{_name_of(given)}: {files} open file(s) made of it (makefile()), which may have bytes in a buffer of "
            "their own that an ICI has not; take what they have read ahead (peek()), flush() and close them first"
        )


def _descriptor(given: HasFileno) -> int:
    try:
        number = given.fileno()
    except AttributeError as exc:
        raise Unsupported(f"{given!r}: not a socket: it has no fileno()") from exc
    except (OSError, ValueError) as exc:  # a file that is closed, or has none of its own (io.IOBase.fileno())
        raise Unsupported(f"{given!r}: not a socket: it has no descriptor: {exc}") from exc
    if number < 0:
        raise Unsupported("the socket is closed")
    return number


def require_fresh(sock: socket.socket, ici: Ici) -> socket.socket:
    """Make sure that *sock* can become the endpoint *ici*.

    :return: *sock*.
    :raises Unsupported: it is closed, no TCP socket, of another family, in repair mode, connected or listening,
        or bound to a port of every address: which one it gets is known when it connects, too late to isolate it.
    """
    with contextlib.ExitStack() as stack:
        as_socket(sock, stack)
    require_tcp(sock)
    if (sock.family == socket.AF_INET6) != ici.ipv6_socket:
        raise Unsupported(f"{ici}: cannot be created with a socket of the family {sock.family.name}")
    state = tcp_repair.get_state(sock)
    if state != State.CLOSE or tcp_repair.get_repair(sock):
        name = State(state).name
        raise Unsupported(
            f"{ici}: cannot be created with a socket in state {name}, {_name(sock)}; take a fresh one"
        )
    bound = local_end(sock)
    if bound.port and bound.ip.is_unspecified:
        raise Unsupported(
            f"{ici}: cannot be created with a socket bound to every address, {_name(sock)}; "
            "bind it to the one that the connection is to have"
        )
    return sock


def _name_of(given: object) -> str:
    return tcp_repair.describe(given) if isinstance(given, socket.socket) else repr(given)


def _duplicate(descriptor: int) -> socket.socket:
    """Another object for the same socket; what Python's default timeout does to the descriptor is undone."""
    before = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    copy = os.dup(descriptor)
    try:
        made = socket.socket(fileno=copy)
    except BaseException:
        os.close(copy)
        raise
    if socket.getdefaulttimeout() is not None:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, before)
    return made


def _check(sock: socket.socket) -> None:
    require_tcp(sock)
    _check_use(sock)


def require_tcp(sock: socket.socket) -> None:
    """Make sure that *sock* is a TCP socket.

    :raises Unsupported: it is something else. :raises KernelError: it is closed.
    """
    # Not sock.type: what makes an enum of it takes longer than the kernel.
    kind, family, protocol = (
        tcp_repair.get_int(sock, socket.SOL_SOCKET, option, name) for option, name in _WHAT_IT_IS
    )
    if kind != socket.SOCK_STREAM or family not in (socket.AF_INET, socket.AF_INET6):
        raise Unsupported(f"{_name(sock)}: not a TCP socket: family {family}, type {kind}")
    if protocol == tcp_repair.IPPROTO_MPTCP:
        raise Unsupported(f"{_name(sock)}: Multipath TCP refuses repair mode; let the program use plain TCP")
    if protocol != socket.IPPROTO_TCP:
        raise Unsupported(f"{_name(sock)}: not a TCP socket: protocol {protocol}")


def _check_use(sock: socket.socket) -> None:
    if tcp_repair.get_repair(sock):
        raise AlreadyGot(f"{_name(sock)}: in repair mode already; whoever did that has to resume it")
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
        raise Unsupported(
            f"{_name(sock)}: not connected, and never was: there is no connection to pass"
        ) from None
    check_told(sock)


def with_error(socks: Iterable[socket.socket]) -> list[socket.socket]:
    """Those of *socks* that have an error, or a message in their error queue, which nobody has taken; it stays."""
    poll, known = select.poll(), {sock.fileno(): sock for sock in socks}
    for number in known:
        poll.register(number, 0)
    return [known[number] for number, events in poll.poll(0) if events & select.POLLERR]


def check_no_error(socks: Iterable[socket.socket]) -> None:
    """Refuse connections that have something to tell which an ICI does not hold.

    The kernel tells by it that it is done with what was sent without a copy (MSG_ZEROCOPY), or when it was sent
    (SO_TIMESTAMPING); and what ICMP says, to who wants to know (IP_RECVERR).

    :raises Unsupported: of the first.
    """
    for sock in with_error(socks):
        raise _untold(sock)


def _untold(sock: socket.socket) -> Unsupported:
    return Unsupported(
        f"{_name(sock)}: an error, or a message in its error queue, that the application has not been told yet; "
        "try again when it has read SO_ERROR, and the queue with MSG_ERRQUEUE"
    )


def check_told(sock: socket.socket) -> None:
    """Refuse a connection whose end, a reset or a timeout, is an error that the application has not got yet."""
    if with_error([sock]):
        raise Unsupported(f"{_name(sock)}: reset or timed out, and the application has not been told yet")


def _check_protocols(sock: socket.socket) -> None:
    if ulp := tcp_repair.get_ulp(sock):
        raise Unsupported(
            f"{_name(sock)}: protocol {ulp} above TCP: what it keeps, keys for example, is not passed"
        )
    if _has_ao(sock):
        raise Unsupported(f"{_name(sock)}: TCP-AO: its keys are not passed")


def has_urgent(socks: Sequence[socket.socket]) -> list[socket.socket]:
    """Those of *socks* for which urgent data has arrived and is not yet read.

    Not seen: a mark ahead in the stream whose byte was read with MSG_OOB. :func:`tcpcp.endpoint.reader.read`
    sees it.
    """
    return _urgent(socks, _events(socks))


def _events(socks: Sequence[socket.socket]) -> dict[int, int]:
    """What poll() says of each descriptor; POLLHUP comes unasked."""
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLPRI | select.POLLRDHUP)
    return dict(poll.poll(0))


def _urgent(socks: Sequence[socket.socket], events: Mapping[int, int]) -> list[socket.socket]:
    return [
        sock
        for sock in socks
        if events.get(sock.fileno(), 0) & select.POLLPRI or tcp_repair.at_mark(sock)
    ]  # fmt: skip


def _check_events(socks: Sequence[socket.socket], events: Mapping[int, int]) -> None:
    for sock in socks:
        if events.get(sock.fileno(), 0) & select.POLLERR:
            raise _untold(sock)
    for sock in _urgent(socks, events):
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
    """Refuse a state of :class:`tcpcp.record.ici.State` that an ICI does not describe."""
    if state not in READABLE:
        remedy = _REMEDIES.get(State(state), "")
        raise Unsupported(f"{_name(sock)}: state {State(state).name} cannot be passed{remedy}")


def device(sock: socket.socket) -> str:
    """The interface that *sock* is bound to, or "".

    :raises Unsupported: its name, which to the kernel is any bytes, is no text.
    """
    raw = tcp_repair.get_bytes(sock, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16, "SO_BINDTODEVICE")
    name = raw.split(b"\0", 1)[0]
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Unsupported(
            f"{_name(sock)}: bound to the interface {name!r}, whose name is not UTF-8; give it another one "
            "(ip link set)"
        ) from None


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
