"""Sockets that are bound to an address that this host has not, since they are permitted to be (IP_FREEBIND).

They wait for it to come, as a standby does, or serve what is led to them, as a proxy. They need none on another
host either; but CRIU binds those of IPv4 there before it sets the option. Source: man ip(7); criu/sk-inet.c
inet_bind().
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection
from functools import partial
from pathlib import Path

from migrate import rtnetlink

#: Level, FREEBIND and TRANSPARENT: one flag by either name. Raw sockets of IPv6 know that of IPv6 alone.
#: Source: net/ipv6/raw.c rawv6_getsockopt().
_OPTIONS = {
    socket.AF_INET: (socket.IPPROTO_IP, (15, 19)),
    socket.AF_INET6: (socket.IPPROTO_IPV6, (78, 75)),
}
_SYSCTLS = {
    socket.AF_INET: Path("/proc/sys/net/ipv4/ip_nonlocal_bind"),
    socket.AF_INET6: Path("/proc/sys/net/ipv6/ip_nonlocal_bind"),
}


def is_bound(sock: socket.socket) -> bool:
    """Whether *sock*, of IP, is one."""
    return _is_permitted(sock) and _plain(sock.getsockname()[0]) not in _addresses()


def of_ipv4(sock: socket.socket) -> str:
    """The address of *sock*, which is one, if it has to be permitted on the other host as well; else ""."""
    return sock.getsockname()[0] if sock.family == socket.AF_INET else ""


def is_permitted_to_all(family: int = socket.AF_INET) -> bool:
    """Whether any program may be bound so here, in this network namespace."""
    with contextlib.suppress(OSError, KeyError):
        return _SYSCTLS[socket.AddressFamily(family)].read_text().strip() != "0"
    return False


def _is_permitted(sock: socket.socket) -> bool:
    level, options = _OPTIONS[socket.AddressFamily(sock.family)]
    return any(map(partial(sock.getsockopt, level), options)) or is_permitted_to_all(sock.family)


def _addresses() -> Collection[str]:
    """Those of this host; the wildcards are everybody's."""
    return {*(str(one.ip) for one in rtnetlink.addresses()), "0.0.0.0", "::"}


def _plain(address: str) -> str:
    return address.partition("%")[0].removeprefix("::ffff:")
