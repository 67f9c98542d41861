"""Reads and sets the socket options of `option_names`, on any TCP socket: connected, listening or fresh.

Source: getsockopt(2), socket(7), tcp(7), ip(7), ipv6(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

from tcpcp import option_names, tcp_repair
from tcpcp.errors import IciError
from tcpcp.option_names import IPPROTO_IP, IPPROTO_IPV6, OPTIONS, RCVBUF_LOCK, SNDBUF_LOCK, U32_MAX, Option

SO_BUF_LOCK = OPTIONS["SO_BUF_LOCK"].number
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

_LINGER = struct.Struct("=2i")
_U32 = struct.Struct("=I")
#: The order in which options are set.
_POSITION = {name: position for position, name in enumerate(OPTIONS)}
_ABSENT = frozenset({errno.ENOPROTOOPT, errno.EOPNOTSUPP})

#: Options that need more than one plain int, or are read only under a condition.
_SPECIAL = frozenset({"SO_LINGER", "SO_SNDBUF", "SO_RCVBUF", "TCP_WINDOW_CLAMP"})

_Items = tuple[tuple[str, int], ...]
_Plan = tuple[tuple[str, int, int, int | None, bool], ...]


def _plan(left_out: int | None, connected: bool) -> _Plan:
    return tuple(
        (o.name, o.level, o.number, o.default, o.maximum == U32_MAX)
        for o in OPTIONS.values()
        if o.name not in _SPECIAL and o.level != left_out and not (connected and o.listening_only)
    )


#: By what is sent, IPv4, IPv6 or both, and whether the socket is connected.
_PLANS = {
    (level, connected): _plan(level, connected)
    for level in (IPPROTO_IPV6, IPPROTO_IP, None)
    for connected in (False, True)
}

#: Options this kernel has not got; asked once.
_absent: set[str] = set()


def read_all(sock: socket.socket, *, ipv6_only: bool = False, connected: bool = False) -> dict[str, int]:
    """The options of *sock* that differ from what every kernel starts with, and those a sysctl sets.

    :param sock: any TCP socket, not in repair mode (repair mode hides SO_REUSEADDR).
    :param ipv6_only: leave out the options that only IPv4 packets are sent with.
    :param connected: leave out the options that matter only before a connection exists.
    :return: values by kernel name, as the kernel reports them; none for options this kernel has not got.
    :raises KernelError: nothing has changed.
    """
    left_out = IPPROTO_IPV6 if sock.family == socket.AF_INET else IPPROTO_IP if ipv6_only else None
    found: dict[str, int] = {}
    get = sock.getsockopt
    for name, level, number, default, unsigned in _PLANS[left_out, connected]:
        if name in _absent:
            continue
        try:
            value = get(level, number)
        except OSError as exc:
            if exc.errno not in _ABSENT:
                raise tcp_repair.failed(f"getsockopt({name})", sock, exc) from exc
            _absent.add(name)
            continue
        if unsigned:
            value &= U32_MAX
        if value != default:
            found[name] = value
    _read_special(sock, found)
    return found


def fresh(ipv6_sockets: Iterable[bool]) -> dict[bool, dict[str, int]]:
    """What sockets start with in this network namespace, by whether they are IPv6.

    :param ipv6_sockets: of each connection, whether its socket is.
    """
    options = {}
    for ipv6 in set(ipv6_sockets):
        with socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM) as one:
            options[ipv6] = read_all(one)
    return options


def _read_special(sock: socket.socket, found: dict[str, int]) -> None:
    on, seconds = _LINGER.unpack(
        tcp_repair.get_bytes(sock, socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size, "SO_LINGER")
    )
    if on:
        found["SO_LINGER"] = seconds
    locks = found.get("SO_BUF_LOCK", 0)
    for name, bit in (("SO_SNDBUF", SNDBUF_LOCK), ("SO_RCVBUF", RCVBUF_LOCK)):
        if locks & bit:
            found[name] = _get(sock, OPTIONS[name])
    # The kernel clamps by itself, to the whole buffer or what the window field can hold, and where the
    # receive buffer is tuned moves the clamp along; an application's clamp stands out by being small.
    clamp = _get(sock, OPTIONS["TCP_WINDOW_CLAMP"])
    if 0 < clamp < sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 4:
        found["TCP_WINDOW_CLAMP"] = clamp


def _get(sock: socket.socket, option: Option) -> int:
    return tcp_repair.get_int(sock, option.level, option.number, option.name)


def apply_all(
    sock: socket.socket,
    options: Mapping[str, int],
    *,
    but_criu_saved: bool = False,
    present: Mapping[str, int] | None = None,
) -> None:
    """Set *options* on *sock*; those not named are left as they are.

    :param sock: a TCP socket. In repair mode SO_REUSEADDR cannot be set for good: leaving it clears it.
    :param options: values by kernel name, as :func:`read_all` returns them.
    :param but_criu_saved: leave out those that CRIU restores itself.
    :param present: what the socket is known to have already, from :func:`read_all` of one like it.
    :raises IciError: a name or a value is not in the table; nothing has changed.
    :raises KernelError: an option was refused; those before it in the table are set.
    """
    if problems := option_names.problems(options, ipv6_socket=sock.family == socket.AF_INET6):
        raise IciError([f"{tcp_repair.describe(sock)}: {problem}" for problem in problems])
    known = tuple(present.items()) if present else ()
    for option, value in _to_set(tuple(options.items()), known, but_criu_saved):
        try:
            _set(sock, option, value)
        except OSError as exc:
            if exc.errno not in _ABSENT:
                raise tcp_repair.failed(f"setsockopt({option.name}, {value})", sock, exc) from exc
    if "SO_BUF_LOCK" in options and not but_criu_saved:
        set_buffer_locks(sock, options["SO_BUF_LOCK"])  # again: setting a buffer's size sets its lock


@lru_cache(256)  # most connections of a server have the same options
def _to_set(options: _Items, present: _Items, but_criu_saved: bool) -> tuple[tuple[Option, int], ...]:
    """In the order in which they are set."""
    known = dict(present)
    wanted = [(OPTIONS[name], value) for name, value in options if known.get(name) != value]
    wanted.sort(key=lambda one: _POSITION[one[0].name])
    return tuple(one for one in wanted if not (but_criu_saved and one[0].saved_by_criu))


def _set(sock: socket.socket, option: Option, value: int) -> None:
    setter = _SETTERS.get(option.name)
    if setter:
        setter(sock, value)
    elif value > option_names.INT_MAX:
        sock.setsockopt(option.level, option.number, _U32.pack(value))
    else:
        sock.setsockopt(option.level, option.number, value)


def _set_linger(sock: socket.socket, seconds: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(seconds >= 0, max(seconds, 0)))


def _set_send_buffer(sock: socket.socket, reported_bytes: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, reported_bytes // 2)


def _set_receive_buffer(sock: socket.socket, reported_bytes: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, reported_bytes // 2)


def _set_v6only(sock: socket.socket, value: int) -> None:
    """Once the socket is bound the kernel refuses even the value it has."""
    if sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) != value:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, value)


_SETTERS = {
    "IPV6_V6ONLY": _set_v6only,
    "SO_LINGER": _set_linger,
    # FORCE: beyond the sysctl limits of this host, as it was on the other one.
    "SO_SNDBUF": _set_send_buffer,
    "SO_RCVBUF": _set_receive_buffer,
}


def set_buffer_locks(sock: socket.socket, locks: int) -> None:
    """Say which buffer sizes the application has set; the kernel tunes the others (since Linux 5.14)."""
    tcp_repair.set_int(sock, socket.SOL_SOCKET, SO_BUF_LOCK, locks, "SO_BUF_LOCK")
