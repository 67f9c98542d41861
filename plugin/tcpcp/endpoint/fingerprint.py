"""Which socket options `kernel_fields.Seen.settings` tells apart: tried out on the running kernel, not believed.

To read all options of a socket takes 50 calls, and the thousands of sockets of a server have the same ones. Where
two sockets have equal bytes in all the fields that stand behind the options, one is read for both. That needs a
list of those fields, and another kernel may keep an option somewhere else. So each option is set to several values
on a socket of ours: whenever getsockopt() says another value the fields have to be others too. Where that does
not hold for one of them, all are read of every socket. Those of :data:`OTHERWISE` are in any case.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator

from tcpcp.endpoint import option_setters
from tcpcp.kernel import fields
from tcpcp.record.option_names import OPTIONS, Option

#: What does not follow from the socket's settings and the sysctls alone: packets count for TCP_QUICKACK
#: (inet_csk_in_pingpong_mode()) and for the sizes, which the kernel tunes; the route for the hops
#: (net/ipv6/ipv6_sockglue.c do_ipv6_getsockopt()).
OTHERWISE = frozenset({"SO_SNDBUF", "SO_RCVBUF", "TCP_WINDOW_CLAMP", "TCP_QUICKACK", "IPV6_UNICAST_HOPS"})
#: Not 0 and 1 alone: a flag beside the value would tell these apart too.
_TRIED = (0, 1, 2, 3, 16, 48, 1000, 65_000, 100_000, 9_000_000_000)

_lock = threading.Lock()
_found: dict[int, bool] = {}


def prepare() -> None:
    """Try them out, once in a process; 10 ms. Nothing where `kernel_fields` sees nothing."""
    fields.prepare()
    for family in (socket.AF_INET, socket.AF_INET6):
        tells_options_apart(family)


def tells_options_apart(family: int) -> bool:
    """Whether connected sockets of *family* with the same settings have the same options, but :data:`OTHERWISE`."""
    with _lock:
        if not fields.ready():
            return False
        if family not in _found:
            try:
                _found[family] = _try_all(family)
            except OSError:  # no such sockets here, or no descriptor at the moment
                return False
        return _found[family]


def _try_all(family: int) -> bool:
    wanted = [one for one in OPTIONS.values() if one.name not in OTHERWISE and not one.listening_only]
    return all(_is_told_apart(family, one) for one in wanted)


def _is_told_apart(family: int, option: Option) -> bool:
    """No two values have the same fields, and there are two at least; or this kernel has not got it."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        if not _has(sock, option):
            return True
        found: dict[bytes, bytes] = {}
        for _ in _values(sock, option):
            (seen,) = fields.look([sock])
            value = sock.getsockopt(option.level, option.number, 16)
            if seen is None or found.setdefault(seen.settings, value) != value:
                return False
    return len({*found.values()}) > 1


def _has(sock: socket.socket, option: Option) -> bool:
    try:
        sock.getsockopt(option.level, option.number)
    except OSError as exc:
        return exc.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP)
    return True


def _values(sock: socket.socket, option: Option) -> Iterator[None]:
    """What the socket starts with, then each value that can be set."""
    yield
    for value in sorted({option.minimum, *_TRIED, option.maximum}):
        if option.minimum <= value <= option.maximum:
            try:
                option_setters.put(sock, option, value)
            except OSError:
                continue
            yield


def _in_child() -> None:
    """Another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_in_child)
