"""Sets one socket option as the kernel wants to be asked: some take a struct, some less than they report."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable

from tcpcp.endpoint import first_namespace
from tcpcp.record.option_names import INT_MAX, LINGER_FOR_EVER, OPTIONS, U32_MAX, Option

LINGER = struct.Struct("=2i")
#: struct __kernel_old_timeval: two longs.
TIMEVAL = struct.Struct("@2l")
LONG = struct.Struct("@L")
U32 = struct.Struct("=I")
NO_LIMIT = 2 ** (8 * LONG.size) - 1
TIMES = tuple(option for option in OPTIONS.values() if option.kernel_type == "timeval")
RATE = OPTIONS["SO_MAX_PACING_RATE"]
SOL_SOCKET = socket.SOL_SOCKET
#: TCP_TIMEOUT_MIN (include/net/tcp.h), two ticks of the clock, where a second has 1000, 300, 250 and 100; us.
_SHORTEST_US = (2000, 6666, 8000, 20000)


def put(sock: socket.socket, option: Option, value: int) -> None:
    """Set one option, to the nearest value that the kernel takes where it is beyond, as a sysctl may have it.

    :raises OSError: it was refused.
    """
    if not option.is_settable(value):
        if sock.getsockopt(option.level, option.number) & U32_MAX == value & U32_MAX:
            return  # the same sysctl here
        value = option.settable(value)
    setter = _SETTERS.get(option.name)
    if setter:
        setter(sock, value)
    elif value > INT_MAX:
        sock.setsockopt(option.level, option.number, U32.pack(value))
    else:
        sock.setsockopt(option.level, option.number, value)


def _set_linger(sock: socket.socket, seconds: int) -> None:
    time = -1 if seconds == LINGER_FOR_EVER else max(seconds, 0)
    sock.setsockopt(SOL_SOCKET, socket.SO_LINGER, LINGER.pack(seconds >= 0, time))


def _set_rate(sock: socket.socket, bytes_a_second: int) -> None:
    sock.setsockopt(SOL_SOCKET, RATE.number, LONG.pack(min(bytes_a_second, NO_LIMIT)))


def _set_short_time(number: int) -> Callable[[socket.socket, int], None]:
    """For one that the kernel of the origin may have shorter than this one takes it, by a sysctl or its clock."""

    def setter(sock: socket.socket, microseconds: int) -> None:
        longer = [one for one in _SHORTEST_US if one > microseconds]
        for time in (microseconds, *longer):
            try:
                sock.setsockopt(socket.IPPROTO_TCP, number, time)
            except OSError as exc:
                if exc.errno != errno.EINVAL or not longer or time == longer[-1]:
                    raise
            else:
                return

    return setter


def _set_send_buffer(sock: socket.socket, reported_bytes: int) -> None:
    _set_size(sock, "SO_SNDBUF", reported_bytes // 2)


def _set_receive_buffer(sock: socket.socket, reported_bytes: int) -> None:
    _set_size(sock, "SO_RCVBUF", reported_bytes // 2)


def _set_size(sock: socket.socket, name: str, size_bytes: int) -> None:
    if not first_namespace.set_size(sock, name, size_bytes):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _set_v6only(sock: socket.socket, value: int) -> None:
    """Once the socket is bound the kernel refuses even the value it has."""
    if sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) != value:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, value)


def _set_timeout(number: int) -> Callable[[socket.socket, int], None]:
    def setter(sock: socket.socket, microseconds: int) -> None:
        sock.setsockopt(SOL_SOCKET, number, TIMEVAL.pack(*divmod(microseconds, 1_000_000)))

    return setter


_SETTERS = {
    "IPV6_V6ONLY": _set_v6only,
    "SO_LINGER": _set_linger,
    "SO_MAX_PACING_RATE": _set_rate,
    **{name: _set_short_time(OPTIONS[name].number) for name in ("TCP_RTO_MIN_US", "TCP_DELACK_MAX_US")},
    # Beyond the sysctl limits of this host, as it was on the other one.
    "SO_SNDBUF": _set_send_buffer,
    "SO_RCVBUF": _set_receive_buffer,
} | {option.name: _set_timeout(option.number) for option in TIMES}
