"""Options of sockets that neither CRIU nor an ICI carries: read at the origin, set on the destination.

They are read before CRIU's dump, which moves where peeks begin while it reads a queue. What a new socket of the
same kind has is not carried: a new one is asked. Which options there are says `option_table`. Multicast groups and
filters have files of their own, or are refused.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from migrate.inventory import option_values
from migrate.inventory.option_table import ALL, CONNECTED, OF_HOST, PLAIN, UNCONNECTED, Option
from migrate.inventory.option_values import Value
from tcpcp.criu.tree import HeldSocket
from tcpcp.errors import KernelError
from tcpcp.kernel.pidfd import Lender

Values = dict[str, Value]

_ORDER = {name: position for position, name in enumerate(ALL)}
#: It tells of both kinds.
_TIME_STAMPS = ALL["SO_TIMESTAMPING"][:2]
#: SOF_TIMESTAMPING_OPT_ID. Source: include/uapi/linux/net_tstamp.h.
_NUMBERED = 1 << 7


@dataclass(frozen=True, slots=True)
class Held:
    """A socket and what it has set, by name."""

    held: HeldSocket
    options: Values

    @property
    def numbers(self) -> dict[str, int]:
        """Those that are numbers."""
        return {name: value for name, value in self.options.items() if isinstance(value, int)}

    @property
    def values(self) -> dict[str, bytes]:
        """Those that are not."""
        return {name: value for name, value in self.options.items() if isinstance(value, bytes)}


@dataclass(slots=True)
class Reader:
    """Reads sockets, one after the other; keeps what new ones of each kind have."""

    _new: dict[tuple[int, int, int], Values] = field(default_factory=dict)

    def plain(self, sock: socket.socket) -> Values:
        """What *sock* has that a new one has not; nothing of a TCP socket.

        An option that the kernel has not got is left out.
        """
        if sock.type == socket.SOCK_STREAM and sock.family != socket.AF_UNIX:
            return {}
        return self._chosen(sock, PLAIN.get(sock.family, {}))

    def unconnected(self, sock: socket.socket) -> Values:
        """The same of a TCP socket without a connection, beside what goes the way of an ICI's."""
        return self._chosen(sock, UNCONNECTED.get(sock.family, {}))

    def _chosen(self, sock: socket.socket, table: Mapping[str, Option]) -> Values:
        kind = (sock.family, sock.type, sock.proto)
        if kind not in self._new:
            self._new[kind] = _of_new(kind, table)
        new = self._new[kind]
        found = _all(sock, table)
        return {name: value for name, value in found.items() if name in OF_HOST or value != new.get(name)}


def read(others: Iterable[HeldSocket]) -> list[Held]:
    """Those of *others*, which are no TCP sockets, that have something set. One that was closed is left out."""
    return _each(others, Reader().plain)


def of_tcp(
    unconnected: Iterable[HeldSocket], connections: Iterable[tuple[HeldSocket, socket.socket]]
) -> list[Held]:
    """The same of TCP sockets, of those without a connection and of others, which are borrowed already."""
    found = _each(unconnected, Reader().unconnected)
    for held, sock in connections:
        with contextlib.suppress(OSError):
            if sock.getsockopt(*_TIME_STAMPS):  # of thousands of connections few have them: one call for each
                found.append(
                    Held(held, {name: value for name, value in _all(sock, CONNECTED).items() if value})
                )
    return found


def _each(sockets: Iterable[HeldSocket], look: Callable[[socket.socket], Values]) -> list[Held]:
    found = []
    with Lender() as lender:
        for one in sockets:
            with contextlib.suppress(KernelError), lender.borrow(*one.holders[0]) as borrowed:
                if options := look(borrowed):
                    found.append(Held(one, options))
    return found


def _of_new(kind: tuple[int, int, int], table: Mapping[str, Option]) -> Values:
    """What a new socket of *kind* has; nothing where none can be made: then all is carried."""
    try:
        made = socket.socket(*kind)
    except OSError:
        return {}
    with made:
        return _all(made, table)


def _all(sock: socket.socket, table: Mapping[str, Option]) -> Values:
    found: Values = {}
    for name, option in table.items():
        with contextlib.suppress(OSError):
            found[name] = option_values.get(sock, option)
    return found


def put_back(
    wanted: Iterable[tuple[int, Mapping[str, Value]]], holders: Mapping[int, tuple[int, int]]
) -> list[str]:
    """Set what is *wanted* on sockets of a tree that was built, and has not run.

    :param wanted: each inode, and options by name.
    :param holders: inode -> (PID, descriptor) on this host.
    :return: sentences: what is different now.
    :raises KernelError, PermissionDenied: a socket cannot be had.
    """
    told = []
    with Lender() as lender:
        for inode, options in wanted:
            pid, fd = holders[inode]
            with lender.borrow(pid, fd) as sock:
                told += [f"descriptor {fd} of process {pid}: {one}" for one in _set(sock, options)]
    return told


def _set(sock: socket.socket, options: Mapping[str, Value]) -> Iterator[str]:
    for name in sorted(options, key=lambda name: _ORDER.get(name, 0)):
        value, option = options[name], ALL.get(name)
        if option is None:
            yield f"the socket option {name} is not known here"
            continue
        try:
            if option_values.get(sock, option) != value:
                option_values.put(sock, option, value)
        except OSError as error:
            was = option_values.told(option, value)
            yield f"the socket option {name} is not {was} as before: {error.strerror or error}"
        else:
            yield from _counting(name, value)


def _counting(name: str, value: Value) -> Iterator[str]:
    """What the kernel counts for an option that is set, and no call sets."""
    if name == "SO_ZEROCOPY" and value:
        yield "what the kernel tells of MSG_ZEROCOPY is numbered from 0 again"
    if name in ("SO_TIMESTAMPING", "SO_TIMESTAMPING_NEW") and isinstance(value, int) and value & _NUMBERED:
        yield "the time stamps of what it sends are numbered from 0 again (SOF_TIMESTAMPING_OPT_ID)"
