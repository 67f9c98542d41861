"""Whether a socket can be passed: what it is, what state it is in, and whether it has what an ICI cannot hold."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterable, Mapping, Sequence

from tcpcp.endpoint import socket_ends
from tcpcp.errors import AlreadyGot, KernelError, Unsupported
from tcpcp.kernel import fields, polling, tcp_repair
from tcpcp.kernel.tcp_repair import TCP
from tcpcp.record.ici import State

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
SO_DOMAIN = 39
_WHAT_IT_IS = ((3, "SO_TYPE"), (SO_DOMAIN, "SO_DOMAIN"), (38, "SO_PROTOCOL"))


def inspect(sock: socket.socket) -> None:
    """Check that *sock* can be passed. Changes nothing and works on a socket in use.

    :param sock: a TCP socket, connected; not in repair mode.
    :raises Unsupported: it is MPTCP, has kTLS or another upper layer protocol, keys of TCP-MD5 or TCP-AO, an IPsec
        policy of its own (as far as BPF tells), urgent data or messages in its error queue not yet read, or is in
        a state that an ICI does not describe.
    :raises AlreadyGot: it is in repair mode.
    :raises KernelError: it is not a socket that can be asked.
    """
    inspect_many([sock])


def inspect_many(socks: Sequence[socket.socket]) -> dict[int, int]:
    """:func:`inspect` for several sockets.

    :return: what poll() says of each descriptor, with POLLRDHUP.
    """
    for sock in socks:
        _check(sock)
    _check_fields(socks)
    events = _events(socks)
    _check_events(socks, events)
    return events


def _check_fields(socks: Sequence[socket.socket]) -> None:
    for sock, why in zip(socks, fields.refused(socks), strict=True):
        if why:
            raise Unsupported(f"{_name(sock)}: {why}")


def check_listener(sock: socket.socket) -> None:
    """Refuse a listener with something that its connections would have to have too.

    :raises Unsupported: it has keys of TCP-MD5 or TCP-AO, or an IPsec policy of its own, or is in a map of sockets,
        as far as BPF tells.
    """
    if why := fields.read([sock])[0].refused:
        raise Unsupported(f"{_name(sock)}: {why}")


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
        socket_ends.last_peer(sock)
    except KernelError:
        raise Unsupported(
            f"{_name(sock)}: not connected, and never was: there is no connection to pass"
        ) from None
    check_told(sock)


def with_error(socks: Iterable[socket.socket]) -> list[socket.socket]:
    """Those of *socks* that have an error, or a message in their error queue, which nobody has taken; it stays."""
    known = {sock.fileno(): sock for sock in socks}
    happened = polling.events(list(known.values()), 0)
    return [known[number] for number, events in happened.items() if events & select.POLLERR]


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


def _events(socks: Sequence[socket.socket]) -> dict[int, int]:
    """What poll() says of each descriptor; POLLHUP comes unasked."""
    return polling.events(socks, select.POLLPRI | select.POLLRDHUP)


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
        if events.get(sock.fileno(), 0) & select.POLLPRI:
            raise Unsupported(f"{_name(sock)}: urgent data is waiting to be read; try again when it has been")
        raise Unsupported(
            f"{_name(sock)}: what comes next is urgent data, which has been read already, or is on its way; "
            "the mark stays until the program reads on; try again when it has, with a recv() that does not wait"
        )


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
