"""A process that keeps the tree still where there is no cgroup to freeze it in; this is its user's end.

See :mod:`migrate.processes.keeping` for what it does. Whoever undoes from a journal needs only its identity.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from migrate import limits
from migrate.errors import MigrateError
from migrate.processes import identity
from migrate.processes.identity import Identity
from tcpcp.criu import tree
from tcpcp.errors import TcpcpError

#: Stands for the tracer of a thread that has ended.
_GONE = -1


class Keeper:
    """A keeper process, running when the constructor returns.

    :raises MigrateError: it did not start.
    """

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(limits.KEEPER_START_S)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "migrate.processes.keeping"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        self._await()
        self.identity = identity.identity(self._process.pid)
        self._socket.settimeout(limits.KEEPER_ANSWER_S)

    def keep(self, criu: Identity, criu_socket: int, tasks: list[Identity], stopping: list[Identity]) -> None:
        """Have it keep *tasks*, which *criu* holds; from here on it does not need us.

        :param criu_socket: our end of the socket over which CRIU waits for an answer.
        :param stopping: those of *tasks* that are to be stopped, should all else fail.
        :raises MigrateError: it does not answer.
        """
        orders = json.dumps({"criu": criu, "tasks": tasks, "stopping": stopping}).encode() + b"\n"
        try:
            socket.send_fds(self._socket, [orders[:1]], [criu_socket])
            self._socket.sendall(orders[1:])
        except OSError as error:
            raise MigrateError(f"the keeper has ended: {error.strerror}") from error
        self._await()

    def close(self) -> None:
        """Have it let go, and reap it."""
        self._socket.close()
        let_go(self.identity)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(limits.KEEPER_ANSWER_S)

    def _await(self) -> None:
        with contextlib.suppress(OSError):
            if self._socket.recv(1):
                return
        self._process.kill()
        self._process.wait()
        raise MigrateError("the keeper does not answer", hint="Try again.")


def let_go(keeper: Identity) -> None:
    """Have a keeper let go of what it keeps; one that does not is killed, which does it too."""
    deadline = time.monotonic() + limits.KEEPER_ANSWER_S
    if identity.send(keeper, signal.SIGTERM) and not identity.wait_gone(keeper, deadline):
        identity.end([keeper])


def problem(keeper: Identity, criu: Identity, tasks: list[Identity]) -> str:
    """Why *tasks* are not all held: by the keeper, or by a CRIU that it keeps waiting; "" when they are."""
    if not identity.alive(keeper):
        return f"the keeper, process {keeper[0]}, has ended"
    tracers = {one[0] for one in (keeper, criu) if identity.alive(one)} | {_GONE}
    loose = [task[0] for task in tasks if identity.alive(task) and not _traced(task, tracers)]
    return f"nobody traces {', '.join(map(str, loose))}" if loose else ""


def _traced(task: Identity, tracers: set[int]) -> bool:
    """Whether each thread of *task* is held by one of *tracers*, or gone."""
    with contextlib.suppress(TcpcpError):
        return all(_tracer(task[0], tid) in tracers for tid in tree.threads(task[0]))
    return True


def _tracer(pid: int, tid: int) -> int:
    """Who traces a thread: 0 when nobody does; _GONE when it has ended."""
    try:
        status = Path(f"/proc/{pid}/task/{tid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return _GONE
    found = re.search(rb"^TracerPid:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else 0
