"""What runs at CRIU's stages, for our driver and for whoever else drives CRIU.

Before anything is frozen, on both hosts: :func:`prepare`. On the origin, when the tree is frozen and
CRIU asks for its ``query-ext-files``::

    extract = Extract.collect(pids)      borrow every TCP socket of the tree
    extract.prepare()                    read what packets do not change; best beside CRIU's dump

And at ``post-dump``::

    isolation.hold(extract.uncovered(), extract.listening)
    for icis in extract.get(): ...       all are in repair mode in the end
    extract.resume(), to go on here; extract.close() in any case

On the destination, before ``restore``:
:class:`tcpcp.criu.completion.Completion`; around it :func:`restoring`; at
``post-restore`` (the tree is built, its sockets are in repair mode, nothing runs): :func:`finish`. At
``pre-resume`` (the tree is whole, stopped, and goes on whoever dies now):
:func:`tcpcp.kernel.tracking.introduce`, remove the filter, then :func:`wake`.

The dump must have been made with ``tcp_close`` and ``network_lock = skip``: TCP is ours alone.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from tcpcp.criu import tree
from tcpcp.endpoint import (
    asking,
    beforehand,
    connecting,
    inspection,
    preparation,
    raw_segment,
    reader,
    repair_mode,
    restored,
    socket_options,
    untracked,
    waking,
)
from tcpcp.endpoint import congestion as congestion_state
from tcpcp.endpoint import same_path as same_path_
from tcpcp.endpoint.isolation import Flow
from tcpcp.errors import KernelError, TcpcpError, Unfed, Unsupported
from tcpcp.kernel import diag, netfilter, nft, tcp_repair
from tcpcp.kernel.pidfd import Lender
from tcpcp.record import addresses
from tcpcp.record.ici import Endpoint, Ici, State

#: From so many connections on, to teach each its round-trip time costs more than it is good for.
MOST_FED = 1000

#: How many connections are read at a time.
_AT_ONCE = 500

_ANY = (ipaddress.IPv4Address(0), ipaddress.IPv6Address(0))


@dataclass(slots=True)
class Listener:
    """A socket that listens, or has no connection yet, and the options that CRIU does not save for it.

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
    #: Those that neither listen nor have a connection.
    unconnected: list[Listener] = field(default_factory=list)
    #: Sockets without a connection, and nothing left to read: those that had one have lost it since the dump.
    closed: list[int] = field(default_factory=list)
    #: inode -> what was read before the isolation; those that could not be passed then are not in it.
    prepared: dict[int, preparation.Prepared] = field(default_factory=dict)

    @classmethod
    def collect(cls, pids: Iterable[int]) -> Extract:
        """Borrow every TCP socket that *pids*, which are frozen, hold. Changes nothing.

        CRIU may be at work in them, and opens and closes descriptors of its own there.

        :raises Unsupported: a listener has keys, or a policy, that would be lost.
        :raises KernelError, PermissionDenied: nothing is kept.
        """
        known = {entry.inode: entry for entry in diag.tcp() if entry.inode}
        held: list[tree.HeldSocket] = []
        others: list[tree.HeldSocket] = []
        for one in tree.sockets(pids):
            (held if one.inode in known else others).append(one)
        extract = cls(held, {}, [], [])
        try:
            with Lender() as lender:
                for one in held:
                    extract._add(known[one.inode], lender, one)
                for one in others:
                    extract._add_closed(lender, one)
        except BaseException:
            extract.close()
            raise
        return extract

    def _add(self, entry: diag.Entry, lender: Lender, one: tree.HeldSocket) -> None:
        if entry.state == State.LISTEN:
            with lender.borrow(*one.holders[0]) as listening:
                inspection.check_listener(listening)
                options, algorithm = socket_options.read_all(listening), entry.congestion
            self.listeners.append(
                Listener(entry.inode, bound(entry), entry.receive_queue, options, algorithm)
            )
        elif entry.peer_port:
            self.connections[entry.inode] = lender.borrow(*one.holders[0])
            self.flows.append(Flow(endpoint(entry.local_ip, entry.local_port), _peer(entry)))
        elif entry.state == State.CLOSE:  # but bound
            with lender.borrow(*one.holders[0]) as sock:
                self._add_unconnected(one.inode, sock)

    def _add_closed(self, lender: Lender, one: tree.HeldSocket) -> None:
        """A TCP socket that the kernel's table has not got: CRIU may have seen it while it had a connection."""
        try:
            borrowed = lender.borrow(*one.holders[0])
        except KernelError as error:
            if error.errno in (
                errno.EBADF,
                errno.ENOTSOCK,
            ):  # gone, which nothing of a frozen task's is: CRIU's
                return
            raise
        with borrowed as sock:
            if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.proto != socket.IPPROTO_TCP:
                return
            if sock.type != socket.SOCK_STREAM:  # a raw socket, which CRIU knows all of
                return
            if tcp_repair.get_state(sock) == State.CLOSE:
                self._set_closed(one.inode, sock)
                self.held.append(one)
                self._add_unconnected(one.inode, sock)

    def _add_unconnected(self, inode: int, sock: socket.socket) -> None:
        options, algorithm = socket_options.read_all(sock), tcp_repair.get_congestion(sock)
        self.unconnected.append(Listener(inode, [], 0, options, algorithm))

    def prepare(self) -> None:
        """Read what only the tree changes, so that less is left for when the peers wait. Changes nothing.

        Of a connection that is reset in this moment nothing is read: :meth:`get` sees to it.
        """
        try:
            found = preparation.prepare_many(list(self.connections.values()))
            self.prepared = dict(zip(self.connections, found, strict=True))
        except TcpcpError:
            for inode, connection in self.connections.items():
                with contextlib.suppress(TcpcpError):
                    self.prepared[inode] = preparation.prepare(connection)

    @property
    def listening(self) -> list[Endpoint]:
        """Where the listeners are bound, for :meth:`tcpcp.endpoint.isolation.Isolation.hold`."""
        return [where for listener in self.listeners for where in listener.bound]

    def uncovered(self) -> list[Flow]:
        """The connections that are not cut off together with a listener, as those of a server are."""
        bound = set(self.listening)
        anywhere = {(one.ip.version, one.port) for one in bound if one.ip.is_unspecified}
        return [
            flow
            for flow in self.flows
            if flow.local not in bound and (flow.local.ip.version, flow.local.port) not in anywhere
        ]

    def get(self) -> Iterator[list[Ici]]:
        """Read every connection; all of them must be isolated. Leaves them in repair mode.

        :return: some at a time, so that these can be on their way already: ICIs whose ``tag`` is the
            socket's inode.
        :raises TcpcpError: a connection that cannot be passed; all are as before.
        """
        self._set_closed_aside()
        pairs = list(self.connections.items())
        try:
            for begin in range(0, len(pairs), _AT_ONCE):
                some = pairs[begin : begin + _AT_ONCE]
                known = [self.prepared.get(inode) or preparation.prepare(sock) for inode, sock in some]
                yield reader.read_many(some, known)
        except TcpcpError:
            self.resume()
            raise

    def _set_closed_aside(self) -> None:
        """A reset, or the last FIN, that arrived after the dump leaves a socket without a connection."""
        for inode, connection in list(self.connections.items()):
            if tcp_repair.get_state(connection) != State.CLOSE:
                continue
            self._set_closed(inode, connection)
            self.connections.pop(inode).close()

    def _set_closed(self, inode: int, connection: socket.socket) -> None:
        inspection.check_told(connection)
        if tcp_repair.get_inq(connection):
            name = tcp_repair.describe(connection)
            raise Unsupported(f"{name}: was closed by its peer in this moment, with bytes unread")
        self.closed.append(inode)

    def reusing(self) -> list[int] | Literal[True]:
        """Inodes of the connections with SO_REUSEADDR, which repair mode overwrites; True if all have it."""
        found = [inode for inode, connection in self.connections.items() if _reuse(connection) == 1]
        return True if len(found) == len(self.connections) else found

    def zerocopy(self) -> list[int]:
        """Inodes of the connections with SO_ZEROCOPY, as far as :meth:`prepare` has read them."""
        return [inode for inode, one in self.prepared.items() if one.options.get("SO_ZEROCOPY")]

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
                repair_mode.leave_repair(one, tcp_repair.OFF_NO_PROBE)
        except TcpcpError as error:
            first = first or error
    if first is not None:
        raise first


def go_on(sock: socket.socket, *, unseen: bool = False) -> bool:
    """Back on the origin, isolated no more: take *sock* out of repair mode and wake its peer.

    :param unseen: as :func:`tcpcp.endpoint.untracked.while_fed` says, in which this is called.
    :return: False where it was not in repair mode; then nothing is done.
    :raises TcpcpError: it is still in repair mode.
    """
    if not tcp_repair.get_repair(sock):
        return False
    asked = waking.begin(sock, unseen=unseen)
    repair_mode.leave_repair(sock, tcp_repair.OFF)
    asking.ask(sock, asked)
    return True


def accept_queues(inodes: Iterable[int]) -> int:
    """How many connections wait in the accept queues of the listeners *inodes*."""
    wanted = frozenset(inodes)
    return sum(e.receive_queue for e in diag.tcp(states=1 << State.LISTEN) if e.inode in wanted)


def prepare() -> None:
    """Load what takes long (0.1 s): on the origin before the freeze, on the destination before the images.

    :raises IsolationError: libnftables is not installed.
    """
    nft.preload()
    beforehand.load()


def restoring(icis: Iterable[Ici], *, same_path: bool) -> same_path_.InitialWindows:
    """Around CRIU's restore: connections start with the window they had, where :func:`finish` cannot see to it.

    :param same_path: the path to the peers is the same as the origin's; else nothing happens.
    """
    return same_path_.InitialWindows(icis if same_path and not congestion_state.ready() else ())


def finish(
    icis: Iterable[Ici],
    holders: Mapping[int, tuple[int, int]],
    listeners: Mapping[int, tuple[dict[str, int], str]],
    *,
    same_path: bool,
) -> None:
    """Set on restored sockets, which are in the caller's network namespace, what CRIU does not know.

    :param holders: inode -> (pid, fd) as this host numbers processes.
    :param listeners: inode of a socket that listens or has no connection -> (options, congestion algorithm).
    :param same_path: the path to the peers is the same as the origin's.
    :raises TcpcpError: of the first socket that refused.
    """
    known = list(icis)
    fresh = socket_options.fresh(ici.ipv6_socket for ici in known)
    with Lender() as lender, raw_segment.keeping():
        may_feed = raw_segment.namespace(socket.AF_INET) is not None
        for ici in known:
            complete = partial(
                restored.finish_restored, present=fresh[ici.ipv6_socket].options, same_path=same_path
            )
            with lender.borrow(*holders[ici.tag], ici.family) as connection:
                if ici.state is not State.CLOSE:
                    connecting.require_ends(connection, ici, ici.local)
                try:
                    complete(connection, ici, may_feed=may_feed)
                except Unfed:
                    # The rest would not arrive either, and it is no reason to give up.
                    may_feed = False
                    complete(connection, ici, may_feed=False)
        for inode, (options, algorithm) in listeners.items():
            with lender.borrow(*holders[inode]) as listening:
                socket_options.apply_all(listening, options)
                if algorithm:
                    tcp_repair.set_congestion(listening, algorithm)


def wake(
    icis: Iterable[Ici],
    holders: Mapping[int, tuple[int, int]],
    netlink: netfilter.Netlink | None = None,
    *,
    runs: bool = False,
) -> None:
    """Have each restored connection tell its peer that it is there: the wake-up of the paper, a window probe.

    CRIU's own, sent when it leaves repair mode, is lost where the filter goes later than that. Leaving repair
    mode is what sends one, so it is entered for a moment, in which the program's calls fail: the tree does not run.

    :param holders: as for :func:`finish`. :param netlink: as for :func:`tcpcp.endpoint.untracked.while_fed`.
    :param runs: it runs all the same, since CRIU was killed: no window probe, only what is owed is acknowledged.
    :raises TcpcpError: of the first connection that refused; it works, but its peer finds out later.
    """
    with Lender() as lender, raw_segment.keeping(), untracked.while_fed(netlink) as unseen:
        for ici in icis:
            with lender.borrow(*holders[ici.tag], ici.family) as connection:
                _wake(connection, _known(ici), unseen, runs)


def _wake(connection: socket.socket, known: waking.Known | None, unseen: bool, runs: bool) -> None:
    """Who is killed in repair mode leaves the socket there, so there is as little as can be done in it."""
    reuse, state = _reuse(connection), tcp_repair.get_state(connection)
    if known:
        fed = waking.unacceptable(connection, state, known, unseen=unseen)
        waking.wake(connection, fed, known.local)
    if runs:
        return
    tcp_repair.set_repair(connection, tcp_repair.ON)
    asked = asking.question(connection, state, known.recent if known else 0)
    tcp_repair.set_repair(connection, tcp_repair.OFF)
    tcp_repair.set_int(connection, socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse, "SO_REUSEADDR")
    asking.ask(connection, asked)


def _known(ici: Ici) -> waking.Known | None:
    """Of its socket, restored in this network namespace, which nobody has changed; within a ``keeping()``."""
    with contextlib.suppress(KernelError):  # no descriptor left
        if namespace := raw_segment.namespace(raw_segment.family(ici.local)):
            return waking.Known.of(ici, namespace, ici.local, ici.peer, ici.device)
    return None


def _reuse(sock: socket.socket) -> int:
    return tcp_repair.get_int(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR, "SO_REUSEADDR")


def bound(entry: diag.Entry) -> list[Endpoint]:
    """Where a listening socket is bound; a dual-stack one counts for both families."""
    local = endpoint(entry.local_ip, entry.local_port)
    if entry.family == socket.AF_INET6 and local.ip.is_unspecified and not entry.v6only:
        return [local, Endpoint(_ANY[0], local.port)]
    return [local]


def _peer(entry: diag.Entry) -> Endpoint:
    return endpoint(entry.peer_ip, entry.peer_port)


def endpoint(packed: bytes, port: int) -> Endpoint:
    """An end of a connection as :mod:`tcpcp.kernel.diag` has it; one that is IPv4-mapped is an IPv4 one."""
    return Endpoint(addresses.address(packed), port)
