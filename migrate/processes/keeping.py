"""What a keeper does: it keeps a tree still by ptrace, which, unlike a SIGSTOP, no signal ends.

After its dump CRIU holds every task, and waits for an answer that comes over a socket. The keeper has that socket,
too, so CRIU goes on waiting when the driver and its guardian are gone. Should CRIU be killed, the keeper attaches
to each thread itself. SIGTERM makes it let go of both. It was started before the freeze, in a session of its own,
and ends by itself if its driver dies before it was given anything to keep.

Meanwhile a SIGSTOP is pending for each task, and is sent again when a SIGCONT has taken it away: should the keeper
be killed, too, the tasks stop. What remains are a SIGCONT less than :data:`AGAIN_S` before that, and one in the
moment in which CRIU is killed.

Source: man ptrace(2): PTRACE_SEIZE, PTRACE_INTERRUPT; only its tracer makes a task in a ptrace-stop go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass

from migrate.processes import identity, ptrace, second_line
from migrate.processes.identity import Identity
from tcpcp.criu import tree
from tcpcp.errors import TcpcpError

#: How long after a SIGCONT the SIGSTOP may be missing.
AGAIN_S = 0.05
#: More than any tree's tasks take as JSON.
MOST_BYTES = 1 << 24


@dataclass(slots=True)
class Orders:
    """What is to be kept.

    :ivar criu: who holds the tasks.
    :ivar criu_socket: the descriptor that makes it go on doing so.
    :ivar stopping: those of *tasks* for which a SIGSTOP is to be pending.
    """

    criu: Identity
    criu_socket: int
    tasks: list[Identity]
    stopping: list[Identity]


def receive(channel: socket.socket) -> Orders | None:
    """The orders that come over *channel*; None when it ends instead."""
    data, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    while data and not data.endswith(b"\n") and len(data) < MOST_BYTES:
        more = channel.recv(1 << 16)
        if not more:
            return None
        data += more
    if not data or not descriptors:
        return None
    said = json.loads(data)
    tasks, stopping = ([(pid, start) for pid, start in said[name]] for name in ("tasks", "stopping"))
    return Orders((said["criu"][0], said["criu"][1]), descriptors[0], tasks, stopping)


def watch_criu(orders: Orders, watched: int, channel: socket.socket) -> None:
    """Keep the SIGSTOPs pending until CRIU has ended.

    :param watched: pidfd of CRIU.
    """
    channel.send(b"+")
    while not select.select([watched], [], [], AGAIN_S)[0]:
        stop(orders.stopping)


def stop(tasks: list[Identity]) -> None:
    """Have a SIGSTOP pending, or in force, for each."""
    for task in tasks:
        second_line.hold(task)


def seize(tasks: list[Identity]) -> None:
    """Hold every thread of *tasks* where it is; those that are made meanwhile, too."""
    held: set[int] = set()
    while found := {tid for task in tasks for tid in _threads(task)} - held:
        held |= found
        for tid in found:
            with contextlib.suppress(OSError):
                ptrace.call(ptrace.SEIZE, tid)
                ptrace.call(ptrace.INTERRUPT, tid)


def hold(orders: Orders) -> None:
    """Let none of the threads go on, whatever they report, until all have ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            while os.waitpid(-1, ptrace.WALL | os.WNOHANG)[0]:
                pass
            stop(orders.stopping)
            time.sleep(AGAIN_S)


def _threads(task: Identity) -> list[int]:
    with contextlib.suppress(TcpcpError):
        return tree.threads(task[0]) if identity.alive(task) else []
    return []


def main() -> int:
    """The keeper's life."""
    # Our end lets go of everything: of the socket, and of what we trace.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(0)) as channel:
        channel.send(b"+")
        orders = receive(channel)
        if orders is None:
            return 0
        criu = os.pidfd_open(orders.criu[0])
        watch_criu(orders, criu, channel)
    stop(orders.stopping)
    seize(orders.tasks)
    hold(orders)
    return 0


if __name__ == "__main__":
    sys.exit(main())
