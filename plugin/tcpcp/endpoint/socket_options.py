"""Reads and sets the socket options of `option_names`, on any TCP socket: connected, listening or fresh.

Source: getsockopt(2), socket(7), tcp(7), ip(7), ipv6(7).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Mapping, Set
from functools import lru_cache

from tcpcp.endpoint import first_namespace, option_setters
from tcpcp.errors import IciError
from tcpcp.kernel import tcp_repair
from tcpcp.record import option_names
from tcpcp.record.option_names import (
    IPPROTO_IP,
    IPPROTO_IPV6,
    LINGER_FOR_EVER,
    OPTIONS,
    RCVBUF_LOCK,
    SNDBUF_LOCK,
    U32_MAX,
    Option,
)

SO_BUF_LOCK = OPTIONS["SO_BUF_LOCK"].number

#: The options that :func:`apply_all` must not be given when it runs before the queues are filled: the sizes,
#: which bound what can be filled in, and a lock that keeps the filter out. Then :func:`set_buffers` and
#: :func:`set_last` are for the end.
LAST = frozenset({"SO_SNDBUF", "SO_RCVBUF", "SO_BUF_LOCK", "TCP_NOTSENT_LOWAT", "SO_LOCK_FILTER"})

#: SO_TXREHASH, until something is chosen; since 6.3 the kernel chooses at once.
_NOT_CHOSEN = 255
_NO_TIME = bytes(option_setters.TIMEVAL.size)
SOL_SOCKET = socket.SOL_SOCKET
#: The order in which options are set.
_POSITION = {name: position for position, name in enumerate(OPTIONS)}
_ECN_BITS = 3
_ABSENT = frozenset({errno.ENOPROTOOPT, errno.EOPNOTSUPP})

#: Options that need more than one plain int, or are read only under a condition.
_SIZES = (OPTIONS["SO_SNDBUF"], OPTIONS["SO_RCVBUF"])
_CLAMP = OPTIONS["TCP_WINDOW_CLAMP"]
_SPECIAL = frozenset(
    option.name
    for option in (*_SIZES, *option_setters.TIMES, _CLAMP, option_setters.RATE, OPTIONS["SO_LINGER"])
)

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


def read_all(
    sock: socket.socket, *, ipv6_only: bool = False, connected: bool = False, only: Set[str] | None = None
) -> dict[str, int]:
    """The options of *sock* that differ from what every kernel starts with, and those a sysctl sets.

    :param sock: any TCP socket, not in repair mode (repair mode hides SO_REUSEADDR).
    :param ipv6_only: leave out the options that only IPv4 packets are sent with.
    :param connected: leave out the options that matter only before a connection exists. Of a connection both
        sizes of buffers are read, of another socket only one that was set: the kernel tunes the others.
    :param only: ask for those; None: for all.
    :return: values by kernel name, as the kernel reports them; none for options this kernel has not got.
    :raises KernelError: nothing has changed.
    """
    left_out = IPPROTO_IPV6 if sock.family == socket.AF_INET else IPPROTO_IP if ipv6_only else None
    found: dict[str, int] = {}
    get = sock.getsockopt
    for name, level, number, default, unsigned in _PLANS[left_out, connected]:
        if name in _absent or (only is not None and name not in only):
            continue
        try:
            value = get(level, number)
        except OSError as exc:
            if exc.errno not in _ABSENT:
                raise tcp_repair.failed(f"getsockopt({name})", sock, exc) from exc
            _absent.add(name)
            continue
        value = _as_carried(name, value, unsigned)
        if value != default:
            found[name] = value
    if found.get("SO_TXREHASH") == _NOT_CHOSEN:
        del found["SO_TXREHASH"]
    if only is None or not only.isdisjoint(_SPECIAL):
        _read_special(sock, found, connected)
    return found


def _as_carried(name: str, value: int, unsigned: bool) -> int:
    """What an ICI has where getsockopt() said *value*, as an int."""
    if unsigned:
        value &= U32_MAX
    change = _CARRIED_AS.get(name)
    return change(value) if change else value


#: What is another way to say the same, or no value that can be chosen (`option_names`).
_CARRIED_AS: dict[str, Callable[[int], int]] = {
    "SO_RCVLOWAT": lambda value: value or 1,
    "SO_PEEK_OFF": lambda value: max(value, -1),
    "TCP_LINGER2": lambda value: value if value >= OPTIONS["TCP_LINGER2"].minimum else 0,
    # Their two lowest bits are those of the packet sent last (ECN).
    **dict.fromkeys(("IP_TOS", "IPV6_TCLASS"), lambda value: value & ~_ECN_BITS),
}


def read_tuned(sock: socket.socket, options: dict[str, int]) -> dict[str, int]:
    """*options*, read of *sock* before, and those that the kernel itself changes as they are now.

    :raises KernelError: nothing has changed.
    """
    try:
        now = {option.name: sock.getsockopt(option.level, option.number) for option in (*_SIZES, _CLAMP)}
    except OSError as exc:
        raise tcp_repair.failed("getsockopt", sock, exc) from exc
    return tuned(options, *now.values())


def tuned(options: dict[str, int], send_bytes: int, receive_bytes: int, clamp: int) -> dict[str, int]:
    """*options* with what the kernel itself changes: the sizes of the buffers, as reported, and the clamp."""
    known = options.get
    same = known("SO_SNDBUF") == send_bytes and known("SO_RCVBUF") == receive_bytes
    if same and (not clamp or known("TCP_WINDOW_CLAMP") == clamp):
        return options
    now = options | {"SO_SNDBUF": send_bytes, "SO_RCVBUF": receive_bytes}
    return now | {"TCP_WINDOW_CLAMP": clamp} if clamp else now


def read_counted(sock: socket.socket, options: Mapping[str, int], *, ipv6_socket: bool) -> dict[str, int]:
    """*options*, read of a connection with the same settings, and what more than these decides as it is of *sock*.

    What that is says :data:`tcpcp.endpoint.fingerprint.OTHERWISE`; the sizes are for :func:`read_tuned`.

    :raises KernelError: nothing has changed.
    """
    return _with(sock, options, _COUNTED[ipv6_socket])


def read_decided(sock: socket.socket, options: Mapping[str, int]) -> dict[str, int]:
    """*options*, read of a connection with the same settings before, and what a sysctl decides as it is now.

    The kernel looks at the sysctl whenever it is asked, where the application has not chosen.

    :raises KernelError: nothing has changed.
    """
    return _with(sock, options, [OPTIONS[name] for name in decided(options)])


def _with(sock: socket.socket, options: Mapping[str, int], again: Iterable[Option]) -> dict[str, int]:
    """*options* with those of *again* as they are of *sock*."""
    found = dict(options)
    for option in again:
        value = tcp_repair.get_int(sock, option.level, option.number, option.name)
        value = _as_carried(option.name, value, option.maximum == U32_MAX)
        if value != option.default:
            found[option.name] = value
        else:
            found.pop(option.name, None)
    return found


#: By whether the socket is IPv6.
_COUNTED = {False: [OPTIONS["TCP_QUICKACK"]], True: [OPTIONS["TCP_QUICKACK"], OPTIONS["IPV6_UNICAST_HOPS"]]}
#: Without a value that every kernel starts with, and so in what was read, if this kernel has got it.
_DECIDED = frozenset(o.name for o in OPTIONS.values() if o.default is None and o.name not in _SPECIAL)


def decided(options: Iterable[str]) -> Set[str]:
    """Those of *options* that a fresh socket has to be asked for: with the others every one starts alike."""
    return _DECIDED & set(options)


class Fresh:
    """What sockets start with in this network namespace at this time.

    :ivar options: as :func:`read_all`. :ivar algorithm: of congestion control.
    """

    def __init__(self, family: int, names: Set[str] | None = None) -> None:
        with tcp_repair.opened(family, socket.SOCK_STREAM) as one:
            self.options = read_all(one, only=names)
            self.algorithm = tcp_repair.get_congestion(one)
        self._to_set: dict[_Items, tuple[tuple[Option, int], ...]] = {}

    def apply(self, sock: socket.socket, options: Mapping[str, int], left_out: Set[str]) -> None:
        """As :func:`apply_all` of those that are not in *left_out*, which is always the same, on a fresh socket.

        Most connections of a server have the same options: what is to be set for them is found out once.
        """
        key = tuple(options.items())
        if key not in self._to_set:
            wanted = {name: value for name, value in options.items() if name not in left_out}
            _require_known(sock, wanted)
            self._to_set[key] = _to_set(tuple(wanted.items()), tuple(self.options.items()), False)
        _set_each(sock, self._to_set[key])


def fresh(ipv6_sockets: Iterable[bool], names: Set[str] | None = None) -> dict[bool, Fresh]:
    """What sockets start with in this network namespace, by whether they are IPv6.

    :param ipv6_sockets: of each connection, whether its socket is.
    :param names: the options that matter; None: all.
    """
    return {ipv6: Fresh(socket.AF_INET6 if ipv6 else socket.AF_INET, names) for ipv6 in set(ipv6_sockets)}


def _read_special(sock: socket.socket, found: dict[str, int], connected: bool) -> None:
    get, locks = sock.getsockopt, found.get("SO_BUF_LOCK", 0)
    try:
        sizes = get(SOL_SOCKET, socket.SO_SNDBUF), get(SOL_SOCKET, socket.SO_RCVBUF)
        linger = get(SOL_SOCKET, socket.SO_LINGER, option_setters.LINGER.size)
        rate = get(SOL_SOCKET, option_setters.RATE.number, option_setters.LONG.size)
        times = [
            get(SOL_SOCKET, option.number, option_setters.TIMEVAL.size) for option in option_setters.TIMES
        ]
        clamp = get(socket.IPPROTO_TCP, _CLAMP.number)
    except OSError as exc:
        raise tcp_repair.failed("getsockopt", sock, exc) from exc
    for option, bit, size in zip(_SIZES, (SNDBUF_LOCK, RCVBUF_LOCK), sizes, strict=True):
        if connected or locks & bit:
            found[option.name] = size
    on, seconds = option_setters.LINGER.unpack(linger)
    if on:
        found["SO_LINGER"] = seconds if seconds >= 0 else LINGER_FOR_EVER
    (limit,) = option_setters.LONG.unpack(rate)
    if limit != option_setters.NO_LIMIT:
        found[option_setters.RATE.name] = min(limit, option_setters.RATE.maximum)
    for option, raw in zip(option_setters.TIMES, times, strict=True):
        if raw != _NO_TIME:
            whole, microseconds = option_setters.TIMEVAL.unpack(raw)
            found[option.name] = min(whole * 1_000_000 + microseconds, option.maximum)
    # The kernel clamps by itself, to the whole buffer or what the window field can hold, and where the
    # receive buffer is tuned moves the clamp along; an application's clamp stands out by being small. A
    # connection is given the one it had in any case: connect() derives one from this host's settings.
    if clamp and (connected or clamp < sizes[1] // 4):
        found["TCP_WINDOW_CLAMP"] = clamp


def apply_all(
    sock: socket.socket,
    options: Mapping[str, int],
    *,
    but_criu_saved: bool = False,
    present: Mapping[str, int] | None = None,
) -> None:
    """Set *options* on *sock*; those not named are left as they are.

    :param sock: a TCP socket. In repair mode SO_REUSEADDR cannot be set for good: leaving it clears it.
    :param options: values by kernel name, as :func:`read_all` returns them. The size of a buffer is set past
        the limits of this host; whether it then counts as the application's says SO_BUF_LOCK, as it was.
    :param but_criu_saved: leave out those that CRIU restores itself, the buffers among them.
    :param present: what the socket is known to have already, from :func:`read_all` of one like it.
    :raises IciError: a name or a value is not in the table; nothing has changed.
    :raises KernelError: an option was refused; those before it in the table are set.
    """
    _require_known(sock, options)
    known = tuple(present.items()) if present else ()
    _set_each(sock, _to_set(tuple(options.items()), known, but_criu_saved))
    if not but_criu_saved and options.keys() & {"SO_SNDBUF", "SO_RCVBUF", "SO_BUF_LOCK"}:
        # Again: setting a buffer's size sets its lock.
        set_buffer_locks(sock, options.get("SO_BUF_LOCK", 0))


def _require_known(sock: socket.socket, options: Mapping[str, int]) -> None:
    if problems := option_names.problems(options, ipv6_socket=sock.family == socket.AF_INET6):
        raise IciError([f"{tcp_repair.describe(sock)}: {problem}" for problem in problems])


def _set_each(sock: socket.socket, options: Iterable[tuple[Option, int]]) -> None:
    for option, value in options:
        try:
            option_setters.put(sock, option, value)
        except OSError as exc:
            if exc.errno not in _ABSENT:
                raise tcp_repair.failed(f"setsockopt({option.name}, {value})", sock, exc) from exc


@lru_cache(256)  # most connections of a server have the same options
def _to_set(options: _Items, present: _Items, but_criu_saved: bool) -> tuple[tuple[Option, int], ...]:
    """In the order in which they are set.

    With IP_TOS always SO_PRIORITY, which it sets too; another may be chosen after it, and what is accepted by a
    listener has 0 (net/ipv4/ip_sockglue.c ip_sock_set_tos()).
    """
    known = dict(present)
    changed = {name: value for name, value in options if known.get(name) != value}
    left = {
        name: value
        for name, value in changed.items()
        if not (but_criu_saved and _is_criu_s(OPTIONS[name], value))
    }
    if "IP_TOS" in left:
        left["SO_PRIORITY"] = dict(options).get("SO_PRIORITY", 0)
    return tuple((OPTIONS[name], left[name]) for name in sorted(left, key=_POSITION.__getitem__))


def _is_criu_s(option: Option, value: int) -> bool:
    """It sets what it saves as it was; what the kernel would refuse is taken out of its images before."""
    return option.saved_by_criu and option.is_settable(value)


def set_buffer_locks(sock: socket.socket, locks: int) -> None:
    """Say which buffer sizes the application has set; the kernel tunes the others (since Linux 5.14)."""
    tcp_repair.set_int(sock, SOL_SOCKET, SO_BUF_LOCK, locks, "SO_BUF_LOCK")


def set_buffers(
    sock: socket.socket,
    options: Mapping[str, int],
    most_receive_bytes: int,
    most_send_bytes: int,
    *,
    receive_is_set: bool = False,
) -> None:
    """Give *sock* the buffers of *options*: their sizes, and which of them the application has set.

    For the end of building, when the queues are filled: what waits in a queue stays there, also when it is
    more than the new size, and the window that was announced is not taken back.

    :param options: as in an ICI. A size that is not there stays as it is.
    :param most_receive_bytes: what SO_RCVBUF may report in the end; a larger one is reduced to that.
    :param most_send_bytes: the same for SO_SNDBUF.
    :param receive_is_set: SO_RCVBUF has its size already, and the lock that comes with it.
    :raises KernelError: of the first call that failed.
    Source: net/core/sock.c __sock_set_rcvbuf(), sk_setsockopt() SO_SNDBUFFORCE: both double what they are given.
    """
    for name, most in (("SO_SNDBUF", most_send_bytes), ("SO_RCVBUF", most_receive_bytes)):
        if name in options and not (receive_is_set and name == "SO_RCVBUF"):
            first_namespace.set_size(sock, name, min(options[name], most) // 2)
    set_buffer_locks(sock, options.get("SO_BUF_LOCK", 0))


def set_last(sock: socket.socket, options: Mapping[str, int]) -> None:
    """What else of :data:`LAST` has to wait: TCP_NOTSENT_LOWAT, 0 if it is not there, and SO_LOCK_FILTER.

    :param sock: with its queues filled, and its filter attached.
    :raises KernelError: of the first call that failed.
    """
    lowat, lock = OPTIONS["TCP_NOTSENT_LOWAT"], OPTIONS["SO_LOCK_FILTER"]
    raw = option_setters.U32.pack(options.get(lowat.name, 0))
    tcp_repair.set_bytes(sock, lowat.level, lowat.number, raw, lowat.name)
    if options.get(lock.name):
        tcp_repair.set_int(sock, lock.level, lock.number, 1, lock.name)
