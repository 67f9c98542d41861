"""What a tree takes by name beside TCP ports, and who has it already: unix sockets, UDP ports, terminals.

CRIU takes all of them again on the other host. It removes a unix socket that is in its way there, whoever listens
on it, and fails for a name, port or terminal that is taken, and for an interface that is not there. What the tree
sends as datagrams to somebody else's unix socket (a log's), it sends to the one of that name over there.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from migrate.inventory import holders, ports, storage, terminals
from migrate.inventory.described import describe
from migrate.pb.session_pb2 import File, TakenName, TcpSocket
from migrate.processes import bound_places, unix_diag, unix_file
from tcpcp.errors import KernelError, PermissionDenied
from tcpcp.kernel.pidfd import Lender

_IPV6_V6ONLY = 26
_CLOSE = 7
_WORD_BYTES = 4
_SO_BINDTOIFINDEX = 62
_IFNAMSIZ = 16
_UNIX = frozenset({TakenName.PATH, TakenName.ABSTRACT, TakenName.RECEIVER})


def of_udp(sock: socket.socket, pid: int, fd: int) -> TakenName | None:
    """The port of a UDP socket; None if it is bound to none, or is no UDP socket."""
    if sock.type != socket.SOCK_DGRAM or sock.proto not in (0, socket.IPPROTO_UDP):
        return None
    address, port = sock.getsockname()[:2]
    if not port:
        return None
    ip = ports.packed(address)
    found = TakenName(
        kind=TakenName.UDP, pid=pid, fd=fd, port=port, ip=ip, ipv6_only=_only_six(sock), shares=_shares(sock)
    )
    found.name = ports.text(ip, port)
    return found


def of_interface(sock: socket.socket, pid: int, fd: int) -> TakenName | None:
    """The interface that a socket is bound to, or None. Source: man socket(7), SO_BINDTODEVICE.

    One that is gone has a number only, and here a name that no interface can have. Source: net/core/sock.c
    sock_getbindtodevice().
    """
    try:
        name = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _IFNAMSIZ).rstrip(b"\0")
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        name = b"interface %d" % sock.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX)
    if not name:
        return None
    return TakenName(kind=TakenName.INTERFACE, name=name.decode(errors="replace"), pid=pid, fd=fd)


def receives(one: unix_diag.UnixSocket) -> bool:
    """Whether datagrams can be sent to this socket by the name that the kernel's table has, as by CRIU.

    Source: criu/sk-unix.c dump_external_sockets().
    """
    if one.kind != socket.SOCK_DGRAM or not one.name.isprintable():
        return False
    return one.name.startswith("@") or (one.name.startswith("/") and is_at(one, one.name))


def is_at(one: unix_diag.UnixSocket, path: str) -> bool:
    """Whether *path* leads to the file that this socket is bound to."""
    try:
        return os.stat(path).st_ino & 0xFFFFFFFF == one.file_inode  # noqa: PTH116
    except (OSError, ValueError):
        return False


def directories(names: Iterable[TakenName]) -> Iterator[File]:
    """The directories that paths of unix sockets are in, each once; not of those that have been deleted."""
    paths = (one.name for one in names if one.kind == TakenName.PATH and one.mode)
    for folder in dict.fromkeys(str(Path(path).parent) for path in paths):
        with contextlib.suppress(OSError):
            found = describe(folder, File.SOCKET_DIRECTORY, os.stat(folder))  # noqa: PTH116
            found.storage = storage.name(folder)
            yield found


def taken(wanted: Iterable[TakenName]) -> list[TakenName]:
    """Return those of *wanted* that cannot be had here: somebody has them already, and who; nobody receives.

    :raises KernelError: the kernel's tables cannot be read.
    """
    wanted = list(wanted)
    found: list[tuple[TakenName, int]] = []
    missing: list[TakenName] = []
    if any(one.kind in _UNIX for one in wanted):
        table = unix_diag.sockets().values()
        found.extend(_unix_taken(wanted, table))
        missing.extend(_deaf(wanted, table))
    if any(one.kind == TakenName.UDP for one in wanted):
        found.extend(_udp_taken(wanted, udp_table()))
    held = holders.of_sockets({inode for _, inode in found if inode})
    with Lender() as lender:
        sockets = [
            _named(one, held.get(inode)) for one, inode in found if not _shared(lender, one, held.get(inode))
        ]
    pings = [_named(one, None) for one in wanted if one.kind == TakenName.PING and not _may_ping()]
    apart = [_named(one, None, place) for one in wanted if (place := bound_places.elsewhere(one))]
    held_terminals = terminals.taken(one for one in wanted if one.kind == TakenName.TERMINAL)
    return [*sockets, *apart, *held_terminals, *pings, *missing]


def _may_ping() -> bool:
    """Whether CRIU, which is root, may make ping sockets here. Source: net/ipv4/ping.c ping_init_sock()."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ping_group_range").read_text().split()
    except (OSError, ValueError):
        return False
    return int(first) <= 0 <= int(last)


def _named(one: TakenName, holder: holders.SocketHolder | None, elsewhere: str = "") -> TakenName:
    found = TakenName()
    found.CopyFrom(one)
    found.holder = holder.who if holder else ""
    found.elsewhere = elsewhere
    return found


def _unix_taken(
    wanted: list[TakenName], table: Iterable[unix_diag.UnixSocket]
) -> Iterator[tuple[TakenName, int]]:
    abstract = {(one.name, one.kind): one.inode for one in table if one.name.startswith("@")}
    files = {one.file_inode: one.inode for one in table if one.file_inode}
    for one in wanted:
        if one.kind == TakenName.ABSTRACT and (one.name, one.socket_type) in abstract:
            yield one, abstract[one.name, one.socket_type]
    # Two sockets have the same path where the file of the first was deleted.
    for one in {one.name: one for one in wanted if one.kind == TakenName.PATH}.values():
        yield from _path_taken(one, files)


def _deaf(wanted: list[TakenName], table: Iterable[unix_diag.UnixSocket]) -> Iterator[TakenName]:
    """Names to which the tree sends datagrams, and on which nobody receives them here."""
    receivers = [one for one in table if receives(one)]
    for name in wanted:
        if name.kind == TakenName.RECEIVER and not any(
            one.name == name.name or (name.name.startswith("/") and is_at(one, name.name))
            for one in receivers
        ):
            yield _named(name, None)


def _path_taken(one: TakenName, files: dict[int, int]) -> Iterator[tuple[TakenName, int]]:
    try:
        status = os.lstat(one.name)
        used = stat.S_ISSOCK(status.st_mode) and unix_file.is_used_at(one.name)
    except (OSError, ValueError):
        return  # there is nothing, nor can there be
    if not stat.S_ISSOCK(status.st_mode):
        one.occupied = True
        yield one, 0
    elif used:  # else a socket of a program that has ended, which CRIU replaces
        yield one, files.get(status.st_ino & 0xFFFFFFFF, 0)


def contested(wanted: Iterable[TakenName]) -> list[TakenName]:
    """Return those UDP ports of *wanted* that somebody has here, but where both permit that nobody loses anything.

    For this one no process is looked at, so whether theirs permits it is not known: if not, no socket can be bound
    beside it.

    :raises KernelError: the kernel's table cannot be read.
    """
    wanted = list(wanted)
    found = _udp_clashes(wanted, udp_table() if wanted else [])
    return [one for one, theirs, _ in found if not (one.shares and _beside(one.ip, theirs.local_ip))]


def _udp_taken(
    wanted: list[TakenName], table: list[tuple[TcpSocket, int]]
) -> Iterator[tuple[TakenName, int]]:
    yield from ((one, inode) for one, _, inode in _udp_clashes(wanted, table))


def _udp_clashes(
    wanted: list[TakenName], table: list[tuple[TcpSocket, int]]
) -> Iterator[tuple[TakenName, TcpSocket, int]]:
    for one in wanted:
        if one.kind == TakenName.UDP:
            ours = TcpSocket(local_ip=one.ip, local_port=one.port, ipv6_only=one.ipv6_only, state=_CLOSE)
            yield from ((one, theirs, inode) for theirs, inode in table if ports.clash(ours, theirs))


def _shared(lender: Lender, one: TakenName, holder: holders.SocketHolder | None) -> bool:
    """Whether both can have the port: IPv6 may leave IPv4 alone, and where both permit it nobody loses anything."""
    if one.kind != TakenName.UDP or holder is None:
        return False
    try:
        with lender.borrow(holder.pid, holder.fd) as sock:
            both = one.shares and _shares(sock) and _beside(one.ip, ports.packed(sock.getsockname()[0]))
            return both or (len(one.ip) == _WORD_BYTES and _only_six(sock))
    except (KernelError, PermissionDenied):
        return False


def _beside(ours: bytes, theirs: bytes) -> bool:
    """Whether a UDP socket bound to *ours* gets all that it would get without one bound to *theirs*.

    A datagram to a group is given to each socket, any other one to a single socket: that of its very address
    before that of all addresses, and of several alike to any (SO_REUSEPORT) or the last one (SO_REUSEADDR).
    Source: net/ipv4/udp.c __udp4_lib_lookup(), __udp4_lib_mcast_deliver().
    """
    groups = any(ipaddress.ip_address(one).is_multicast for one in (ours, theirs))
    return groups or (any(ours) and not any(theirs))


def _only_six(sock: socket.socket) -> bool:
    return sock.family == socket.AF_INET6 and bool(sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_V6ONLY))


def _shares(sock: socket.socket) -> bool:
    return any(sock.getsockopt(socket.SOL_SOCKET, one) for one in (socket.SO_REUSEADDR, socket.SO_REUSEPORT))


def udp_table() -> list[tuple[TcpSocket, int]]:
    """The UDP sockets of this network namespace, with their inodes. Source: net/ipv4/udp.c udp4_format_sock()."""
    found: list[tuple[TcpSocket, int]] = []
    for name in ("udp", "udp6"):
        with contextlib.suppress(FileNotFoundError):
            lines = Path(f"/proc/net/{name}").read_text().split("\n")[1:]
            found.extend(parse_udp(line) for line in lines if line)
    return found


def parse_udp(line: str) -> tuple[TcpSocket, int]:
    """A line of /proc/net/udp or udp6: its addresses are numbers of 32 bits in the order of this machine.

    :raises ValueError, IndexError: it is another text.
    """
    fields = line.split()
    address, port = fields[1].split(":")
    words = (int(address[at : at + 8], 16) for at in range(0, len(address), 8))
    ip = b"".join(word.to_bytes(_WORD_BYTES, "little") for word in words)
    # Whether an IPv6 socket leaves IPv4 alone is not in the table; it is found when the port is.
    return TcpSocket(local_ip=ip, local_port=int(port, 16), state=_CLOSE), int(fields[9])
