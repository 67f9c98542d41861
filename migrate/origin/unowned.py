"""Connections of the tree that only the kernel has: no descriptor names them, so no dump can take them along.

* An answer that was written and whose connection was closed at once: the kernel goes on sending it, from a
  socket in FIN_WAIT1, CLOSING or LAST_ACK. When its address has left, the rest never reaches the client.
* A client of a listener with TCP_DEFER_ACCEPT that has connected and not sent anything: for the client there is
  a connection, for the kernel only a request of one (SYN_RECV).

They are waited for before the freeze, while nothing is held; again while new connections are held; and looked for
when the tree is frozen, after which it closes nothing any more. FIN_WAIT2 and TIME_WAIT need nothing: the peer
has all that was sent, and a FIN that it repeats is answered by the destination with a reset, which takes nothing
from it (tests/facts/test_left_behind.py).

Source: man tcp(7) TCP_DEFER_ACCEPT; net/ipv4/inet_connection_sock.c syn_ack_recalc(); net/ipv4/tcp.c tcp_close().
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from migrate import interrupt, limits
from migrate.checks.subject import names
from migrate.errors import MigrateError, Reason, Refused
from migrate.inventory.ports import text
from migrate.units import size
from tcpcp.criu import tree
from tcpcp.errors import KernelError
from tcpcp.kernel import diag
from tcpcp.kernel.pidfd import Lender
from tcpcp.record.addresses import plain
from tcpcp.record.ici import State

POLL_S = 0.01

#: States in which something is still to be sent, or to be acknowledged.
_CLOSING = frozenset({State.FIN_WAIT1, State.CLOSING, State.LAST_ACK})
_WANTED = sum(1 << state for state in (*_CLOSING, State.SYN_RECV))
_LISTENING = 1 << State.LISTEN

#: Local address, local port; the address is 4 or 16 bytes, IPv4-mapped no more.
Bound = tuple[bytes, int]
#: Both ends of a connection.
Ends = tuple[bytes, int, bytes, int]


@dataclass(slots=True)
class Unowned:
    """What was found.

    :ivar closed: ends -> bytes that are not acknowledged yet, FIN included.
    :ivar deferred: ends -> for how many seconds at most the listener waits for data.
    """

    closed: dict[Ends, int] = field(default_factory=dict)
    deferred: dict[Ends, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.closed or self.deferred)

    def still(self, now: Unowned) -> Unowned:
        """Those that are in *now* too, as they are there."""
        return Unowned(
            {ends: count for ends, count in now.closed.items() if ends in self.closed},
            {ends: most for ends, most in now.deferred.items() if ends in self.deferred},
        )

    def reasons(self) -> list[Reason]:
        """In words, for people; none when there is nothing."""
        found = []
        if self.closed:
            found.append(Reason("unsent", "origin", *_closed_words(self.closed)))
        if self.deferred:
            found.append(Reason("deferred", "origin", *_deferred_words(self.deferred)))
        return found


def sort(
    entries: Iterable[diag.Entry],
    moving: Collection[bytes],
    deferring: Mapping[Bound, int],
    inside: Callable[[], Collection[Ends]] = frozenset,
) -> Unowned:
    """Pick from the kernel's table what would be lost. Pure.

    :param moving: the addresses that leave this host: whatever is on them would be cut off, whoever made it.
    :param deferring: where listeners with TCP_DEFER_ACCEPT are bound -> its value.
    :param inside: says the connections of the tree, whose far end may be one that is looked for.
    """
    found = Unowned()
    for entry in entries:
        ends = (plain(entry.local_ip), entry.local_port, plain(entry.peer_ip), entry.peer_port)
        if entry.state == State.SYN_RECV:
            if (most := _deferral(ends, deferring)) is not None:
                found.deferred[ends] = most
        elif entry.state in _CLOSING and not entry.inode and _leaves(ends, moving, inside):
            found.closed[ends] = entry.send_queue
    return found


def _deferral(ends: Ends, deferring: Mapping[Bound, int]) -> int | None:
    ip, port = ends[:2]
    places = ((ip, port), (bytes(len(ip)), port), (bytes(16), port))
    return next((deferring[place] for place in places if place in deferring), None)


def _leaves(ends: Ends, moving: Collection[bytes], inside: Callable[[], Collection[Ends]]) -> bool:
    if ends[0] in moving:
        return True
    return ipaddress.ip_address(ends[0]).is_loopback and (*ends[2:], *ends[:2]) in inside()


class Watcher:
    """Looks for them, and waits for them.

    :param pids: the processes of the tree, as they are at the moment.
    :param moving: addresses that leave this host, as text.
    :param heed: called again and again; what it raises ends a wait.
    """

    def __init__(
        self, pids: Callable[[], Iterable[int]], moving: Iterable[str], heed: Callable[[], None]
    ) -> None:
        self._pids, self._heed = pids, heed
        self._moving = {ipaddress.ip_address(one).packed for one in moving}
        self._deferring: dict[Bound, int] = {}

    def look(self) -> Unowned:
        """What there is now.

        :raises KernelError: the kernel's table cannot be read.
        """
        return sort(diag.tcp(states=_WANTED), self._moving, self._deferring, self._inside)

    def learn(self) -> None:
        """Look which listeners of the tree have TCP_DEFER_ACCEPT, and for how long."""
        self._deferring = _deferring(tree.sockets_now(self._pids()))

    def wait(self, say: Callable[[str], None]) -> None:
        """Wait until those that are here now have gone. Others may have come: they go as well, it seems.

        :param say: is told what is waited for.
        :raises Refused: some stay.
        """
        self.learn()
        began, left = time.monotonic(), self.look()
        for reason in left.reasons():
            say(f"waiting: {reason.text}")
        while left:
            waited_s = time.monotonic() - began
            late = Unowned(
                left.closed if waited_s > limits.UNSENT_S else {},
                left.deferred if waited_s > limits.DEFERRED_S else {},
            )
            if late:
                raise Refused(late.reasons())
            self._heed()
            time.sleep(POLL_S)
            left = left.still(self.look())

    def wait_for_none(self, deadline: float) -> None:
        """Wait until there are none; new connections are held.

        :param deadline: of time.monotonic().
        :raises MigrateError: there still are.
        """
        self.learn()
        while left := self.look():
            if time.monotonic() > deadline:
                raise remain(left)
            self._heed()
            time.sleep(POLL_S)

    def none_left(self) -> bool:
        """Whether there are none, when the tree is frozen and makes no more; what is on its way may arrive.

        :raises KernelError: the kernel's table cannot be read.
        """
        until = time.monotonic() + limits.UNSENT_FROZEN_S
        while left := self.look():
            if left.deferred or time.monotonic() > until:
                return False
            self._heed()
            time.sleep(POLL_S / 10)
        return True

    def _inside(self) -> set[Ends]:
        held = {one.inode for one in tree.sockets_now(self._pids())}
        return {
            (plain(one.local_ip), one.local_port, plain(one.peer_ip), one.peer_port)
            for one in diag.tcp()
            if one.inode in held
        }


def _deferring(held: Iterable[tree.HeldSocket]) -> dict[Bound, int]:
    table = {entry.inode: entry for entry in diag.tcp(states=_LISTENING)}
    found: dict[Bound, int] = {}
    with Lender() as lender:
        for one in held:
            if (entry := table.get(one.inode)) is None:
                continue
            try:
                with lender.borrow(*one.holders[0]) as listening:
                    most = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
            except (KernelError, OSError):
                continue  # closed since
            if most:
                found[plain(entry.local_ip), entry.local_port] = most
    return found


def remain(left: Unowned) -> MigrateError:
    """The error when they do not go although nothing new comes."""
    reasons = left.reasons()
    return MigrateError(
        "; ".join(one.text for one in reasons) or "connections keep being closed with data still to be sent",
        hint=" ".join(one.remedy for one in reasons)
        + " Or allow more with --max-gap: new connections are held meanwhile.",
    )


def notes(pids: Callable[[], Iterable[int]], moving: Iterable[str]) -> list[str]:
    """What ``--check`` says about those that are there at the moment; parameters as of :class:`Watcher`."""
    watcher = Watcher(pids, moving, interrupt.check)
    watcher.learn()
    left = watcher.look()
    return [f"{one.text}; migrate would wait for it before it freezes anything" for one in left.reasons()]


def _closed_words(closed: Mapping[Ends, int]) -> tuple[str, str]:
    some = names(f"{text(*ends[:2])} - {text(*ends[2:])}" for ends in closed)
    noun, have, its = _count(closed, "connection"), _have(closed), "its" if len(closed) == 1 else "their"
    # Each has a FIN in its queue, which counts as a byte and is none.
    if unread := sum(max(0, count - 1) for count in closed.values()):
        what, remedy = f"{size(unread)} that {its} other end has not taken yet", "it has been read"
    else:
        what, remedy = (
            f"an end (FIN) that {its} other end has not acknowledged yet",
            "it has been acknowledged",
        )
    return f"{noun} that the process has closed {have} {what} ({some}): it would be cut off", (
        f"Try again when {remedy}; `ss -tnoa state fin-wait-1 state last-ack state closing` shows it, and"
        " `ss -K dst ADDRESS` ends what is never taken."
    )


def _deferred_words(deferred: Mapping[Ends, int]) -> tuple[str, str]:
    where = names(sorted({text(*ends[:2]) for ends in deferred}))
    words = (
        f"{_count(deferred, 'client')} {_have(deferred)} connected to {where} and sent nothing yet, which"
        f" TCP_DEFER_ACCEPT hides from the process for up to {max(deferred.values())} s: they would be cut off"
    )
    return words, (
        "Try again, or start the server without the option (nginx: `listen` without `deferred`; Apache:"
        " `AcceptFilter http none`)."
    )


def _count(what: Collection[object], noun: str) -> str:
    return f"{len(what)} {noun}" if len(what) == 1 else f"{len(what)} {noun}s"


def _have(what: Collection[object]) -> str:
    return "has" if len(what) == 1 else "have"
