"""Before the freeze: no connection is lost in an accept queue.

A connection that waits to be accepted belongs to no descriptor, so no dump can take it along. New ones are
held off (their SYN is dropped, which their sender repeats), and the process empties its queues itself. Where this
host answers with SYN cookies it keeps nothing of a handshake under way: it waits as it would for one that it knows.

A tree that connects to its own listener would be frozen with a connection that waits for an answer to its SYN,
which no dump takes along. So what comes from this host is held no earlier than in the freeze, when the tree begins
nothing.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

from migrate import limits
from migrate.errors import MigrateError
from migrate.gap.lease import Lease
from tcpcp.criu import stages, tree
from tcpcp.kernel import diag, syn_cookies
from tcpcp.record.addresses import plain
from tcpcp.record.ici import Endpoint, State

POLL_S = 0.001


def drain(
    lease: Lease,
    pids: list[int],
    deadline: float,
    about_to_hold: Callable[[list[Endpoint]], None],
    heed: Callable[[], None],
) -> list[int]:
    """Hold new connections to the listeners of *pids* off and wait until no connection waits there.

    Programs of this host go on connecting if *lease* lets them, until they have kept the queues filled too long.

    :param deadline: of time.monotonic().
    :param about_to_hold: called with where the listeners are bound, just before their SYNs are dropped.
    :param heed: called again and again; what it raises ends the wait.
    :return: inodes of the listeners; *lease* holds their SYNs.
    :raises MigrateError: the process does not accept; the SYNs are still held.
    """
    held = {one.inode for one in tree.sockets_now(pids)}
    listeners = [entry for entry in diag.tcp(states=1 << State.LISTEN) if entry.inode in held]
    inodes = [entry.inode for entry in listeners]
    if not listeners:
        return inodes
    about_to_hold(_bound(listeners))
    lease.hold((), _bound(listeners), syn_only=True)
    patient_until, inside_until = time.monotonic() + limits.HANDSHAKE_S, time.monotonic() + limits.INSIDE_S
    unknown_until = min(patient_until, deadline) if syn_cookies.may_be_about() else 0.0
    while (
        waiting := _waiting(listeners, handshakes=time.monotonic() < patient_until)
    ) or time.monotonic() < unknown_until:
        if time.monotonic() > deadline:
            raise _not_accepted(inodes, waiting)
        if time.monotonic() > inside_until:
            lease.let_inside(connect=False)
        heed()
        time.sleep(POLL_S)
    return inodes


def own_attempts(pids: list[int], inodes: list[int]) -> list[str]:
    """Which connections to the listeners *inodes* the tree *pids* has begun itself and waits for, in words.

    It reads a directory for each process of the tree, and the kernel's whole table.
    """
    entries = diag.tcp(states=1 << State.LISTEN | 1 << State.SYN_SENT)
    ports = {one.local_port for one in entries if one.inode in inodes}
    begun = [one for one in entries if one.state == State.SYN_SENT and one.peer_port in ports]
    if not begun:
        return []
    held = {one.inode for one in tree.sockets_now(pids)}
    own = [stages.endpoint(one.peer_ip, one.peer_port) for one in begun if _inside(one) and one.inode in held]
    return sorted(set(map(str, own)))


def _inside(one: diag.Entry) -> bool:
    """Whether its peer is this host: the sender has the same address, unless it has chosen another one."""
    peer = ipaddress.ip_address(plain(one.peer_ip))
    return peer.is_loopback or one.peer_ip == one.local_ip


def _not_accepted(inodes: list[int], waiting: int) -> MigrateError:
    full = [one for one in diag.tcp(states=1 << State.LISTEN) if one.inode in inodes and one.receive_queue]
    where = {str(bound) for bound in _bound(full)}
    noun = "connection waits" if waiting == 1 else "connections wait"
    return MigrateError(
        f"{waiting} {noun} at {', '.join(sorted(where)) or 'a listener'} to be accepted, and the process does "
        "not accept",
        hint="They would be lost with the process. Try again when the server is not stuck or overloaded, or "
        "allow more with --max-gap: new connections are held meanwhile.",
    )


def _bound(listeners: list[diag.Entry]) -> list[Endpoint]:
    return [bound for entry in listeners for bound in stages.bound(entry)]


def _waiting(listeners: list[diag.Entry], *, handshakes: bool) -> int:
    inodes = {entry.inode for entry in listeners}
    ports = {entry.local_port for entry in listeners}
    entries = diag.tcp(states=1 << State.LISTEN | 1 << State.SYN_RECV)
    queued = sum(e.receive_queue for e in entries if e.state == State.LISTEN and e.inode in inodes)
    half_open = sum(1 for e in entries if e.state == State.SYN_RECV and e.local_port in ports)
    return queued + (half_open if handshakes else 0)
