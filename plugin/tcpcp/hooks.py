"""What runs at CRIU's stages, for our driver and for whoever else drives CRIU.

On the origin, at ``post-dump`` (the tree is frozen, the network live)::

    extract = Extract.collect(pids)      borrow every TCP socket of the tree
    isolation.hold(extract.flows, extract.listeners)
    icis = extract.get()                 all are in repair mode now
    extract.resume() or extract.release()

On the destination, before ``restore``: :func:`complete_images`; at ``post-restore`` (the tree is built,
its sockets are in repair mode, nothing runs): :func:`finish`.

The dump must have been made with ``tcp_close`` and ``network_lock = skip``: TCP is ours alone.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tcpcp import builder, checks, codec, criu_images, diag, reader, socket_options, tcp_repair, tree
from tcpcp.errors import TcpcpError, Unsupported
from tcpcp.ici import Endpoint, Ici, State
from tcpcp.isolation import Flow
from tcpcp.pidfd import Lender

#: The ICIs of all connections of a tree, beside CRIU's images.
ICI_IMAGE = "ici.img"

_ANY = (ipaddress.IPv4Address(0), ipaddress.IPv6Address(0))
_UNCONNECTED = frozenset({State.CLOSE, State.LISTEN})


@dataclass(slots=True)
class Listener:
    """A listening socket, and the options that CRIU does not save for it.

    :ivar waiting: connections in its accept queue.
    """

    inode: int
    bound: list[Endpoint]
    waiting: int
    options: dict[str, int] = field(default_factory=dict)
    congestion: str = ""


@dataclass(slots=True)
class Extract:
    """The TCP sockets of a frozen tree, borrowed from it; :meth:`close` gives them back.

    :ivar held: every TCP socket and its descriptors.
    :ivar connections: inode -> a duplicate of the socket.
    """

    held: list[tree.HeldSocket]
    connections: dict[int, socket.socket]
    flows: list[Flow]
    listeners: list[Listener]
    #: Connections that had ended, with nothing left to read, by the time they were isolated.
    closed: list[int] = field(default_factory=list)

    @classmethod
    def collect(cls, pids: Iterable[int]) -> Extract:
        """Borrow every TCP socket that *pids*, which are frozen, hold. Changes nothing.

        :raises KernelError, PermissionDenied: nothing is kept.
        """
        known = {entry.inode: entry for entry in diag.tcp() if entry.inode}
        held = [one for one in tree.sockets(pids) if one.inode in known]
        extract = cls(held, {}, [], [])
        try:
            with Lender() as lender:
                for one in held:
                    extract._add(known[one.inode], lender, one)
        except BaseException:
            extract.close()
            raise
        return extract

    def _add(self, entry: diag.Entry, lender: Lender, one: tree.HeldSocket) -> None:
        if entry.state == State.LISTEN:
            with lender.borrow(*one.holders[0]) as listening:
                options, algorithm = socket_options.read_all(listening), entry.congestion
            self.listeners.append(
                Listener(entry.inode, bound(entry), entry.receive_queue, options, algorithm)
            )
        elif entry.peer_port:
            self.connections[entry.inode] = lender.borrow(*one.holders[0])
            self.flows.append(Flow(_endpoint(entry.local_ip, entry.local_port), _peer(entry)))

    @property
    def listening(self) -> list[Endpoint]:
        """Where the listeners are bound, for :meth:`tcpcp.isolation.Isolation.hold`."""
        return [where for listener in self.listeners for where in listener.bound]

    def get(self) -> list[Ici]:
        """Read every connection; all of them must be isolated. Leaves them in repair mode.

        :return: ICIs whose ``tag`` is the socket's inode.
        :raises TcpcpError: a connection that cannot be passed; all are as before.
        """
        self._set_closed_aside()
        return reader.read_many(list(self.connections.items()))

    def _set_closed_aside(self) -> None:
        """A reset, or the last FIN, that arrived after the dump leaves a socket without a connection."""
        for inode, connection in list(self.connections.items()):
            if tcp_repair.get_info(connection).state != State.CLOSE:
                continue
            if tcp_repair.get_inq(connection):
                raise Unsupported("a connection was closed by its peer in this moment, with bytes unread")
            self.connections.pop(inode).close()
            self.closed.append(inode)

    def resume(self) -> None:
        """Undo :meth:`get`: the connections go on here as soon as they are not isolated any more."""
        resume(self.connections.values())

    def close(self) -> None:
        """Give the sockets back; the tree's own descriptors are not touched."""
        while self.connections:
            self.connections.popitem()[1].close()


def resume(sockets: Iterable[socket.socket]) -> None:
    """Take *sockets* out of repair mode without sending anything; those that are not in it stay as they are.

    :raises TcpcpError: of the first that could not; the others have been taken care of.
    """
    first: TcpcpError | None = None
    for one in sockets:
        try:
            if tcp_repair.get_repair(one):
                reader.leave_repair(one, tcp_repair.OFF_NO_PROBE)
        except TcpcpError as error:
            first = first or error
    if first is not None:
        raise first


def accept_queues(inodes: Iterable[int]) -> int:
    """How many connections wait in the accept queues of the listeners *inodes*."""
    wanted = frozenset(inodes)
    entries = diag.tcp()
    return sum(e.receive_queue for e in entries if e.state == State.LISTEN and e.inode in wanted)


def complete_images(directory: Path, closed: Iterable[int] = ()) -> list[Ici]:
    """Complete CRIU's images in *directory* with the connections of its ICI image.

    :param closed: inodes of connections that have ended.
    :return: the ICIs.
    :raises CodecError: an image is malformed, or CRIU's images and the ICIs do not belong together.
    :raises IciError: an ICI that makes no sense, or that this host cannot take (paper 7.1).
    """
    icis = list(codec.loads_many((directory / ICI_IMAGE).read_bytes()))
    limits = local_limits()
    for ici in icis:
        checks.check(ici, limits)
    inventory, files = directory / "inventory.img", directory / "files.img"
    inventory.write_bytes(criu_images.patch_inventory(inventory.read_bytes()))
    states = {ici.tag: ici.state for ici in icis}
    files.write_bytes(criu_images.patch_files(files.read_bytes(), states, list(closed)))
    for ici in icis:
        (directory / criu_images.tcp_stream_name(ici.tag)).write_bytes(criu_images.tcp_stream(ici))
    return icis


def local_limits() -> checks.Limits:
    """What this host can take: queue sizes and congestion control (paper 7.1)."""
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    return checks.Limits(congestion_algorithms=frozenset(available))


def listeners_of_images(directory: Path) -> list[Endpoint]:
    """Where the listening sockets of the images will be bound; a dual-stack one counts for both families."""
    found = []
    for one in criu_images.inet_sockets((directory / "files.img").read_bytes()):
        if one.state == State.LISTEN:
            found.append(one.local)
            if one.ipv6 and not one.ipv6_only and one.local.ip.is_unspecified:
                found.append(Endpoint(_ANY[0], one.local.port))
    return found


def finish(
    icis: Iterable[Ici],
    holders: Mapping[int, tuple[int, int]],
    listeners: Mapping[int, tuple[dict[str, int], str]],
    *,
    same_path: bool,
) -> None:
    """Set on restored sockets what CRIU does not know.

    :param holders: inode -> (pid, fd) as this host numbers processes.
    :param listeners: inode of a listening socket -> (options, congestion algorithm).
    :param same_path: the path to the peers is the same as the origin's.
    :raises TcpcpError: of the first socket that refused.
    """
    with Lender() as lender:
        for ici in icis:
            with lender.borrow(*holders[ici.tag]) as restored:
                builder.finish_restored(restored, ici, same_path=same_path)
        for inode, (options, algorithm) in listeners.items():
            with lender.borrow(*holders[inode]) as listening:
                socket_options.apply_all(listening, options)
                if algorithm:
                    tcp_repair.set_congestion(listening, algorithm)


def bound(entry: diag.Entry) -> list[Endpoint]:
    """Where a listening socket is bound; a dual-stack one counts for both families."""
    local = _endpoint(entry.local_ip, entry.local_port)
    if entry.family == socket.AF_INET6 and local.ip.is_unspecified and not entry.v6only:
        return [local, Endpoint(_ANY[0], local.port)]
    return [local]


def _peer(entry: diag.Entry) -> Endpoint:
    return _endpoint(entry.peer_ip, entry.peer_port)


def _endpoint(packed: bytes, port: int) -> Endpoint:
    ip = ipaddress.ip_address(packed)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return Endpoint(mapped or ip, port)
