"""Before the freeze: one migration a process at a time, and no connection lost in an accept queue.

A connection that waits to be accepted belongs to no descriptor, so no dump can take it along. New ones are
held off (their SYN is dropped, which their sender repeats), and the process empties its queues itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Generator
from pathlib import Path

from migrate import interrupt, place
from migrate.errors import MigrateError, Reason, Refused
from tcpcp import diag, hooks, tree
from tcpcp.ici import Endpoint, State
from tcpcp.isolation import Isolation

#: How long to wait for handshakes under way: their last segment comes within a round trip or not at all.
HANDSHAKE_S = 1.0
POLL_S = 0.001


@contextlib.contextmanager
def pid_lock(pid: int) -> Generator[None, None, None]:
    """Keep other migrations of *pid* away.

    :raises Refused: there is one.
    """
    place.STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place.STATE / f"pid-{pid}.lock"
    descriptor = _lock(path)
    while os.fstat(descriptor).st_nlink == 0:  # its last owner removed it between our open and our lock
        os.close(descriptor)
        descriptor = _lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        remedy = "Wait until it has ended."
        raise Refused([Reason("busy", "origin", "another migrate is moving this process", remedy)]) from None
    return descriptor


def drain(isolation: Isolation, pids: list[int], deadline: float) -> list[int]:
    """Hold new connections to the listeners of *pids* off and wait until no connection waits there.

    :param deadline: of time.monotonic().
    :return: inodes of the listeners; *isolation* holds their SYNs.
    :raises MigrateError: the process does not accept; the SYNs are still held.
    """
    held = {one.inode for one in tree.sockets(pids)}
    listeners = [entry for entry in diag.tcp() if entry.state == State.LISTEN and entry.inode in held]
    inodes = [entry.inode for entry in listeners]
    if not listeners:
        return inodes
    isolation.hold((), _bound(listeners), syn_only=True)
    handshakes_until = time.monotonic() + HANDSHAKE_S
    while waiting := _waiting(listeners, handshakes=time.monotonic() < handshakes_until):
        if time.monotonic() > deadline:
            raise MigrateError(
                f"{waiting} connections wait in the accept queue and the process does not accept them",
                phase="freeze",
                hint="a server that is stuck or overloaded cannot be moved without losing them; "
                "try again when it accepts",
            )
        interrupt.check()
        time.sleep(POLL_S)
    return inodes


def _bound(listeners: list[diag.Entry]) -> list[Endpoint]:
    return [bound for entry in listeners for bound in hooks.bound(entry)]


def _waiting(listeners: list[diag.Entry], *, handshakes: bool) -> int:
    inodes = {entry.inode for entry in listeners}
    ports = {entry.local_port for entry in listeners}
    entries = diag.tcp(states=1 << State.LISTEN | 1 << State.SYN_RECV)
    queued = sum(e.receive_queue for e in entries if e.state == State.LISTEN and e.inode in inodes)
    half_open = sum(1 for e in entries if e.state == State.SYN_RECV and e.local_port in ports)
    return queued + (half_open if handshakes else 0)
