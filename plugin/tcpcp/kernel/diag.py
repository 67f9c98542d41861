"""The kernel's table of TCP sockets: one dump over NETLINK_SOCK_DIAG per address family, or one socket of it.

It holds every TCP socket of the caller's network namespace that has at least a local port, whoever owns it
and in whatever state, so that neither a descriptor nor a privilege is needed to read most of it. Of an MPTCP
socket it holds the subflows, under the inode of the MPTCP socket and with ``mptcp`` as upper layer protocol
(net/mptcp/subflow.c mptcp_subflow_create_socket()). Sockets that were never bound are not in it, and until
Linux 6.8 none that are bound and neither listen nor connect.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

from tcpcp.errors import KernelError
from tcpcp.kernel import tcp_repair
from tcpcp.record import addresses

_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLM_F_REQUEST_DUMP = 0x301
#: include/linux/err.h MAX_ERRNO
_MOST_ERRNO = 4095

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
#: Every state of enum tcp_state (include/net/tcp_states.h), also TCP_BOUND_INACTIVE: bound, not connected.
_ALL_STATES = 0xFFFFFFFF
#: TCP_BOUND_INACTIVE exists only in sock_diag; for everybody else that socket is in CLOSE.
_BOUND_INACTIVE = 13
_TIME_WAIT, _CLOSE, _LISTEN = 6, 7, 10
#: As a socket's timer: all that is left of a connection, whose place another may take.
_TIMER_TIME_WAIT = 3
#: INET_DIAG_NOCOOKIE: whichever socket has these ends.
_ANY_COOKIE = 0xFFFFFFFF_FFFFFFFF

_HEADER = struct.Struct("=IHHII")
#: struct inet_diag_req_v2 with an empty struct inet_diag_sockid.
_REQUEST = struct.Struct("=BBBxI48x")
#: The same for one socket: local and peer port in network order, their addresses, interface, cookie.
_EXACT_REQUEST = struct.Struct("=BBBxI2s2s16s16sIII")
#: struct inet_diag_msg (include/uapi/linux/inet_diag.h); the ports are in network order.
_MESSAGE = struct.Struct("=BBBB2s2s16s16sIIIIIIII")
#: Only the inode of it.
_INODE = struct.Struct(f"={_MESSAGE.size - 4}xI")
#: What each answer begins with: its type; then there is struct inet_diag_msg, or of NLMSG_ERROR a number.
_KIND = struct.Struct("=4xH")
#: Where in struct inet_diag_msg they are, a byte each.
_STATE, _TIMER = 1, 2
_NUMBER = struct.Struct("=i")
#: So many answers have room in the smallest buffer that is usual.
_AT_ONCE = 32
_ATTRIBUTE = struct.Struct("=HH")

#: The two upper bits of a type are flags.
_NLA_TYPE_MASK = 0x3FFF

#: Since Linux 5.0.
_SO_BINDTOIFINDEX = 62

_INET_DIAG_INFO = 2
_INET_DIAG_CONG = 4
_INET_DIAG_SKV6ONLY = 11
_INET_DIAG_MD5SIG = 18
_INET_DIAG_ULP_INFO = 19
_INET_ULP_INFO_NAME = 1


#: What :func:`one` says where there is no such connection, or it is another socket's.
NOT_IN_TABLE = (errno.ENOENT, errno.ESTALE)
#: Address, 4 or 16 bytes, and port.
End = tuple[bytes, int]
#: Local and peer, each as one family has it, and the interface that the socket is bound to, or 0.
Wanted = tuple[tuple[End, End], int]


class Entry(NamedTuple):
    """One TCP socket, as the kernel sees it at the moment of the dump.

    :ivar inode: of the socket; 0 when no descriptor refers to it (TIME_WAIT, not yet accepted, orphaned).
    :ivar family: AF_INET or AF_INET6.
    :ivar state: include/net/tcp_states.h, as :class:`tcpcp.record.ici.State`.
    :ivar local_ip: 4 or 16 bytes as the socket has it: IPv4-mapped addresses stay mapped.
    :ivar receive_queue: bytes not read; of a listener: connections not yet accepted.
    :ivar send_queue: bytes not acknowledged; of a listener: the largest number not yet accepted.
    :ivar interface: index of the interface that the socket is bound to, or 0.
    :ivar uid: owner.
    :ivar congestion: name of the congestion control, "" where the kernel says none.
    :ivar v6only: IPV6_V6ONLY is set.
    :ivar md5: with details: TCP-MD5 keys are set; the kernel says so only to CAP_NET_ADMIN.
    :ivar ulp: with details: upper layer protocol in the socket, e.g. ``tls``, or "".
    """

    inode: int
    family: int
    state: int
    local_ip: bytes
    local_port: int
    peer_ip: bytes
    peer_port: int
    receive_queue: int
    send_queue: int
    interface: int
    uid: int
    congestion: str
    v6only: bool
    md5: bool
    ulp: str


def tcp(*, states: int = _ALL_STATES, details: bool = False) -> list[Entry]:
    """Return every TCP socket of this network namespace; about 5 us each, 7 us with details.

    :param states: bit mask of the states wanted, ``1 << State.LISTEN`` and so on.
    :param details: also find out TCP-MD5 and upper layer protocol, which the kernel tells only to those who
        ask for struct tcp_info as well.
    :raises KernelError: the kernel has no inet_diag, or the dump failed.
    Source: man sock_diag(7); net/ipv4/inet_diag.c.
    """
    extensions = 1 << (_INET_DIAG_CONG - 1) | details << (_INET_DIAG_INFO - 1)
    return [_entry(*where) for family in _FAMILIES for where in _dump(family, extensions, states)]


def one(sock: socket.socket, ends: tuple[End, End] | None = None) -> Entry:
    """What the table says of *sock*, with details; about 30 us.

    :param sock: a TCP socket with a connection, of the calling thread's network namespace.
    :param ends: local and peer, by which it is looked for; None: those that it says it has.
    :raises KernelError: ENOENT, ESTALE: it is not in the table; ENOTCONN: it has no connection.
    Source: net/ipv4/inet_diag.c inet_diag_find_one_icsk().
    """
    request = _exact(sock, ends or _ends(sock), tcp_repair.get_cookie(sock))
    if found := _ask(sock, _SOCK_DIAG_BY_FAMILY, request):
        return _entry(found, 0, len(found))
    raise KernelError("sock_diag(TCP)", errno.EPROTO, tcp_repair.describe(sock))


class Lingering(NamedTuple):
    """What the kernel remembers of a connection that has ended: TIME_WAIT. :ivar left_s: how long it will."""

    left_s: float
    cookie: int


def lingering(sock: socket.socket, ends: tuple[End, End]) -> Lingering | None:
    """What is remembered of a connection with *ends*, local and peer, that would be in the way of *sock*.

    :raises KernelError: the kernel does not tell.
    """
    try:
        found = _ask(sock, _SOCK_DIAG_BY_FAMILY, _exact(sock, ends, _ANY_COOKIE))
    except KernelError as exc:
        if exc.errno not in NOT_IN_TABLE:
            raise
        return None
    return _lingering(found) if found else None


def ended(wanted: Sequence[Wanted]) -> list[tuple[int, Lingering]]:
    """Which of *wanted* are remembered only (TIME_WAIT): their indices, and what is; 4 us each.

    What else has ended on this host costs nothing. :raises KernelError: the kernel does not tell.
    """
    found = ((number, _lingering(message)) for number, message in _found(wanted))
    return [(number, one) for number, one in found if one]


def connected(wanted: Sequence[Wanted]) -> list[int]:
    """Which of *wanted* a socket has, their indices: where connect() would say so; 4 us each.

    :raises KernelError: the kernel does not tell.
    """
    # Where no socket has the ends, one that listens there may be found instead.
    return [
        number
        for number, message in _found(wanted)
        if message[_STATE] != _LISTEN and message[_TIMER] != _TIMER_TIME_WAIT
    ]


def _found(wanted: Sequence[Wanted]) -> Iterator[tuple[int, bytes]]:
    """Those of which the table has something: the index, and struct inet_diag_msg.

    :raises KernelError: the kernel does not tell.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            for begin in range(0, len(wanted), _AT_ONCE):
                some = wanted[begin : begin + _AT_ONCE]
                netlink.send(b"".join([_whoever(*one) for one in some]))
                # Of each there is one answer, in their order.
                answers = [_told(netlink.recv(4096)) for _ in some]
                yield from ((number, one) for number, one in enumerate(answers, begin) if one)
    except OSError as error:
        raise KernelError("sock_diag(TCP)", error.errno or errno.EIO) from None


def _whoever(ends: tuple[End, End], interface: int) -> bytes:
    """The message that asks for a socket with these ends; without NLM_F_ACK, which would be a second answer."""
    (here, port), (there, peer_port) = ends
    family = socket.AF_INET if len(here) == 4 else socket.AF_INET6
    ports = port.to_bytes(2, "big"), peer_port.to_bytes(2, "big")
    header = _HEADER.pack(_HEADER.size + _EXACT_REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    cookie = 0xFFFFFFFF
    return header + _EXACT_REQUEST.pack(
        family, socket.IPPROTO_TCP, 0, _ALL_STATES, *ports, here, there, interface, cookie, cookie
    )


def _told(answer: bytes) -> bytes:
    """The message in the one answer about two ends; b"" where the table has nothing with these."""
    if len(answer) < _HEADER.size + _NUMBER.size:
        raise _malformed()
    (kind,) = _KIND.unpack_from(answer)
    if kind == _SOCK_DIAG_BY_FAMILY:
        if len(answer) < _HEADER.size + _MESSAGE.size:
            raise _malformed()
        return answer[_HEADER.size :]
    number = -_NUMBER.unpack_from(answer, _HEADER.size)[0]
    if number not in NOT_IN_TABLE:
        raise OSError(number, "netlink") if 0 < number <= _MOST_ERRNO else _malformed()
    return b""


def _lingering(message: bytes) -> Lingering | None:
    """What is remembered, where *message* tells of that."""
    _, state, *_, low, high, left_ms, _, _, _, _ = _MESSAGE.unpack_from(message)
    return Lingering(left_ms / 1000, low | high << 32) if state == _TIME_WAIT else None


def forget(wanted: Wanted, one: Lingering) -> None:
    """Have the kernel forget *one*, from :func:`lingering` or :func:`ended`, without a packet.

    :raises KernelError: ENOENT, ESTALE: it has by itself; EOPNOTSUPP: it cannot (Linux 6.0,
        CONFIG_INET_DIAG_DESTROY); EPERM: no CAP_NET_ADMIN.
    Source: net/ipv4/tcp.c tcp_abort().
    """
    ends, interface = wanted
    family = socket.AF_INET if len(ends[0][0]) == 4 else socket.AF_INET6
    _destroy(_request(family, ends, interface, one.cookie))


def destroy(entry: Entry) -> None:
    """End the connection of *entry*, whoever has it: its peer is sent a reset, if nothing keeps that away.

    :raises KernelError: ENOENT: it has ended by itself; EOPNOTSUPP: the kernel cannot
        (CONFIG_INET_DIAG_DESTROY); EPERM: no CAP_NET_ADMIN.
    Source: net/ipv4/tcp.c tcp_abort().
    """
    ends = (entry.local_ip, entry.local_port), (entry.peer_ip, entry.peer_port)
    _destroy(_request(entry.family, ends, entry.interface, _ANY_COOKIE))


def _destroy(request: bytes) -> None:
    try:
        _exchange(_SOCK_DESTROY, request)
    except OSError as error:
        raise KernelError("sock_diag(TCP)", error.errno or errno.EIO) from None


def _ask(sock: socket.socket, kind: int, request: bytes) -> bytes:
    """As :func:`_exchange`, about *sock*."""
    try:
        return _exchange(kind, request)
    except OSError as error:
        raise tcp_repair.failed("sock_diag(TCP)", sock, error) from None


def _exchange(kind: int, request: bytes) -> bytes:
    """The kernel's message about one socket; b"" where it acknowledges, or says something else."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(
            _HEADER.pack(_HEADER.size + len(request), kind, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + request
        )
        part = netlink.recv(1 << 16)
        answer, begin, end = next(_messages(part))
        if answer == _SOCK_DIAG_BY_FAMILY and end - begin >= _MESSAGE.size:
            return part[begin:end]
        _finish(part, begin, end)
    return b""


def _ends(sock: socket.socket) -> tuple[End, End]:
    try:
        (local, local_port), (peer, peer_port) = sock.getsockname()[:2], sock.getpeername()[:2]
    except OSError as error:
        raise tcp_repair.failed("getpeername", sock, error) from None
    here, there = (socket.inet_pton(sock.family, text.split("%", 1)[0]) for text in (local, peer))
    return (here, local_port), (there, peer_port)


def _exact(sock: socket.socket, ends: tuple[End, End], cookie: int) -> bytes:
    """The request for *sock*, or for what has its *ends*; one bound to an interface is found only there."""
    return _request(sock.family, ends, interface_of(sock), cookie)


def _request(family: int, ends: tuple[End, End], interface: int, cookie: int) -> bytes:
    """The request for one socket."""
    words = (cookie & 0xFFFFFFFF, cookie >> 32)
    ports = [port.to_bytes(2, "big") for _, port in ends]
    ips = [addresses.in_family(ip, family) for ip, _ in ends]
    extensions = 1 << (_INET_DIAG_CONG - 1) | 1 << (_INET_DIAG_INFO - 1)
    return _EXACT_REQUEST.pack(
        family, socket.IPPROTO_TCP, extensions, _ALL_STATES, *ports, *ips, interface, *words
    )


def interface_of(sock: socket.socket) -> int:
    """The index of the interface that *sock* is bound to, or 0."""
    return tcp_repair.get_int(sock, socket.SOL_SOCKET, _SO_BINDTOIFINDEX, "SO_BINDTOIFINDEX")


def tcp_inodes() -> set[int]:
    """Return the inodes of those sockets that have a descriptor, and nothing else; below 2 us each.

    :raises KernelError: as :func:`tcp`.
    """
    inode = _INODE.unpack_from
    found = {inode(part, begin)[0] for family in _FAMILIES for part, begin, _ in _dump(family, 0)}
    found.discard(0)
    return found


def query(request: bytes, what: str, least: int) -> Iterator[tuple[bytes, int, int]]:
    """Send one dump *request* of sock_diag, and yield of each socket where its message is.

    :param request: struct inet_diag_req_v2, unix_diag_req, ...: what follows the netlink header.
    :param what: for the error, e.g. ``"TCP"``.
    :param least: bytes that each socket's message has at least.
    :return: a buffer, and where in it the message without its netlink header begins and ends.
    :raises KernelError: the kernel has no such table, or the dump failed; EBADMSG, it is malformed.
    """
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.send(header + request)
            while not (yield from sockets(netlink.recv(1 << 16), least)):
                pass
    except OSError as error:
        raise KernelError(f"sock_diag({what})", error.errno or errno.EIO) from None


def sockets(part: bytes, least: int) -> Generator[tuple[bytes, int, int], None, bool]:
    """Yield what :func:`query` does, from *part*, one datagram of the kernel's answer.

    :return: whether the dump has ended with it.
    :raises OSError: the error that it carries; EBADMSG, a message is cut, or shorter than *least* bytes.
    """
    for kind, begin, end in _messages(part):
        if kind != _SOCK_DIAG_BY_FAMILY:
            _finish(part, begin, end)
            return True
        if end - begin < least:
            raise _malformed()
        yield part, begin, end
    return False


def attributes(part: bytes, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of the netlink attributes in *part*; one that is cut ends them."""
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(part, offset)
        if length < _ATTRIBUTE.size or offset + length > end:
            return
        yield kind & _NLA_TYPE_MASK, part[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _dump(family: int, extensions: int, states: int = _ALL_STATES) -> Iterator[tuple[bytes, int, int]]:
    return query(_REQUEST.pack(family, socket.IPPROTO_TCP, extensions, states), "TCP", _MESSAGE.size)


def _messages(part: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield type, begin and end of each message in *part*, without its header; there is at least one."""
    offset, size, unpack, whole = 0, _HEADER.size, _HEADER.unpack_from, len(part)
    while offset < whole or not whole:
        length, kind, _, _, _ = unpack(part, offset) if offset + size <= whole else (0, 0, 0, 0, 0)
        if length < size or offset + length > whole:
            raise _malformed()
        yield kind, offset + size, offset + length
        offset += (length + 3) & ~3


def _finish(part: bytes, begin: int, end: int) -> None:
    """Raise the error that NLMSG_DONE or NLMSG_ERROR carries, if any."""
    number = -_NUMBER.unpack_from(part, begin)[0] if end - begin >= _NUMBER.size else 0
    if not 0 <= number <= _MOST_ERRNO:
        raise _malformed()
    if number:
        raise OSError(number, "netlink")


def _malformed() -> OSError:
    return OSError(errno.EBADMSG, "netlink")


def _entry(part: bytes, offset: int, end: int) -> Entry:
    (family, state, _, _, sport, dport, src, dst, interface, _, _, _, rqueue, wqueue, uid, inode) = (
        _MESSAGE.unpack_from(part, offset)
    )
    size = 4 if family == socket.AF_INET else 16
    congestion, v6only, md5, ulp = _details(part, offset + _MESSAGE.size, end)
    return Entry(
        inode, family, _CLOSE if state == _BOUND_INACTIVE else state,
        src[:size], int.from_bytes(sport, "big"), dst[:size], int.from_bytes(dport, "big"),
        rqueue, wqueue, interface, uid, congestion, v6only, md5, ulp,
    )  # fmt: skip


def _details(part: bytes, offset: int, end: int) -> tuple[str, bool, bool, str]:
    congestion, v6only, md5, ulp = "", False, False, ""
    for kind, value in attributes(part, offset, end):
        if kind == _INET_DIAG_CONG:
            congestion = _text(value)
        elif kind == _INET_DIAG_SKV6ONLY:
            v6only = value[:1] != b"\0"
        elif kind == _INET_DIAG_MD5SIG:
            md5 = True
        elif kind == _INET_DIAG_ULP_INFO:
            ulp = _ulp(value)
    return congestion, v6only, md5, ulp


def _ulp(nested: bytes) -> str:
    """Return the name in the nested attribute (net/ipv4/tcp_diag.c tcp_diag_put_ulp())."""
    names = [
        _text(value) for kind, value in attributes(nested, 0, len(nested)) if kind == _INET_ULP_INFO_NAME
    ]
    return names[0] if names else "unknown"


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("ascii", "replace")
