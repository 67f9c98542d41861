"""The helper's first process: listens, asks the kernel who it is that connects, and hands him to his worker.

It reads nothing from anybody but its workers, and takes no descriptors, so nobody can make it wait.

A worker that has nothing to do is let go after a while: users come and go, and each has a process. It says how many
connections it has finished with; if that is all that were handed to it, and only then, nothing is on its way to it.

Once a minute it deletes the empty packet filters that programs which were killed have left, its own workers too.

Source: unix(7) SO_PEERCRED; net/core/sock.c SO_PEERGROUPS, SO_NETNS_COOKIE; sd_listen_fds(3).
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tcpcp.endpoint import flow_table
from tcpcp.errors import OtherNamespace, PermissionDenied, TcpcpError
from tcpcp.helper import descriptors, protocol, telling
from tcpcp.helper.bounds import Bounds
from tcpcp.helper.policy import Allowed, Rights
from tcpcp.helper.protocol import HelperError, failure_of
from tcpcp.helper.worker import HAND_OVER

#: Users at a time; each has a process.
MAX_WORKERS = 64
#: How long a worker that has nothing to do is kept for the next connection of its user.
IDLE_S = 10.0
BACKLOG = 64
#: How often what the dead have left is looked for.
SWEEP_S = 60.0
_AFTER_SHORTAGE_S = 0.1
_SO_PEERGROUPS, _SO_NETNS_COOKIE = 59, 71
_CREDENTIALS = struct.Struct("=iII")
#: What Python asks the kernel for at most; who is in more groups than fit is in his first one alone.
_MOST_BYTES = 1024
_FIRST_PASSED = 3


class Asker(NamedTuple):
    """Who has connected, as the kernel knew him then."""

    pid: int
    uid: int
    gids: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Worker:
    """A user's process, and the socket to hand connections to it.

    :ivar handed: how many it was given. :ivar idle_since: by time.monotonic(); None: it has something to do.
    """

    process: subprocess.Popen[bytes]
    connection: socket.socket
    handed: int = 0
    idle_since: float | None = None


class Server:
    """Serves until SIGTERM or SIGINT.

    :param listener: a Unix SOCK_SEQPACKET socket that listens, in the network namespace to work in.
    """

    def __init__(self, listener: socket.socket, allowed: Allowed, bounds: Bounds) -> None:
        self._listener, self._allowed, self._bounds = listener, allowed, bounds
        self._workers: dict[int, Worker] = {}
        self._leaving: list[subprocess.Popen[bytes]] = []
        self._swept = time.monotonic()
        self._namespace = _namespace_of(listener)
        self._poll = select.poll()

    def run(self) -> None:
        """Serve; at the end let every worker finish what is held through it."""
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.POLLIN)
        woken = _signals()
        self._poll.register(woken, select.POLLIN)
        while True:
            ready = {number for number, _ in self._poll.poll(self._pause_ms())}
            if woken.fileno() in ready:
                break
            self._hear(ready)
            self._let_go(IDLE_S)
            self._sweep()
            if self._listener.fileno() in ready:
                self._accept()
        self._listener.close()
        for worker in self._workers.values():
            worker.connection.close()
        for process in [*(worker.process for worker in self._workers.values()), *self._leaving]:
            process.wait()

    def _pause_ms(self) -> float:
        """Until there is a worker to let go, or to sweep."""
        if self._leaving:
            return 200
        idle = [one.idle_since for one in self._workers.values() if one.idle_since is not None]
        next_s = min([self._swept + SWEEP_S, *(since + IDLE_S for since in idle)])
        return max(0, next_s - time.monotonic()) * 1000 + 1

    def _sweep(self) -> None:
        if time.monotonic() < self._swept + SWEEP_S:
            return
        self._swept = time.monotonic()
        with contextlib.suppress(TcpcpError, OSError):  # another time
            for name in flow_table.sweep():
                telling.tell(f"deleted table inet {name}")

    def _hear(self, ready: set[int]) -> None:
        """What workers say, of whom those that have ended say nothing."""
        for uid, worker in list(self._workers.items()):
            if worker.connection.fileno() in ready:
                finished = _word(worker.connection)
                if finished == str(worker.handed).encode():
                    worker.idle_since = time.monotonic()
                elif not finished:
                    worker.process.kill()
                    worker.process.wait()
                    self._forget(uid)

    def _let_go(self, after_s: float) -> None:
        """Those workers that have had nothing to do for that long: they end when their connection does."""
        until = time.monotonic() - after_s
        for uid, worker in list(self._workers.items()):
            if worker.idle_since is not None and worker.idle_since <= until:
                self._leaving.append(worker.process)
                self._forget(uid)
        self._leaving = [process for process in self._leaving if process.poll() is None]

    def _forget(self, uid: int) -> None:
        worker = self._workers.pop(uid)
        self._poll.unregister(worker.connection)
        worker.connection.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (ConnectionError, BlockingIOError):
            return  # gone again
        except OSError:
            time.sleep(_AFTER_SHORTAGE_S)  # no descriptor or no memory is free: it may be another time
            return
        with connection:
            try:
                asker = who(connection)
                rights = self._admit(connection, asker)
                self._hand_over(connection, asker.uid, rights)
            except TcpcpError as error:
                _refuse(connection, error)

    def _admit(self, connection: socket.socket, asker: Asker) -> Rights:
        """What *asker* may claim."""
        rights = self._allowed.rights(asker.uid, asker.gids)
        if rights is None:
            telling.tell(f"user {asker.uid}, process {asker.pid}: refused")
            raise PermissionDenied(f"user {asker.uid} is not among those whom this helper serves")
        if _namespace_of(connection) != self._namespace:
            raise OtherNamespace("this helper serves another network namespace than the caller's")
        return rights

    def _hand_over(self, connection: socket.socket, uid: int, rights: Rights) -> None:
        try:
            worker = self._workers.get(uid)
            if worker is not None and worker.process.poll() is not None:
                self._forget(uid)
                worker = None
            worker = worker or self._start(uid)
            packet = HAND_OVER + str(rights).encode()
            descriptors.send(worker.connection, packet, [connection.fileno()], wait=False)
            worker.handed += 1
            worker.idle_since = None
        except OSError as error:
            raise HelperError("this user's requests are not answered at the moment; try again") from error

    def _start(self, uid: int) -> Worker:
        if len(self._workers) >= MAX_WORKERS:
            self._let_go(0)
        if len(self._workers) >= MAX_WORKERS:
            raise HelperError(f"{MAX_WORKERS} users are served already, which is the limit")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = theirs.fileno()
        numbers = [str(one) for one in (number, uid, *self._bounds)]
        # -P: what lies in the working directory is not for us to import.
        command = [sys.executable, "-P", "-m", "tcpcp.helper.worker", *numbers]
        process = subprocess.Popen(command, pass_fds=[number], stdin=subprocess.DEVNULL)
        theirs.close()
        self._workers[uid] = Worker(process, ours)
        self._poll.register(ours, select.POLLIN)
        return self._workers[uid]


def who(connection: socket.socket) -> Asker:
    """Who has made *connection*, with the rights he had at that moment."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        groups = array.array("I", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES))
    except OSError:
        groups = array.array("I")
    return Asker(pid, uid, (gid, *groups))


def _namespace_of(sock: socket.socket) -> bytes:
    """The network namespace; of an accepted Unix socket it is the one of who connected."""
    return sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)


def _word(connection: socket.socket) -> bytes:
    """What a worker has said; nothing: it has ended."""
    try:
        return connection.recv(32, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b"?"
    except OSError:
        return b""


def _refuse(connection: socket.socket, error: TcpcpError) -> None:
    try:
        descriptors.send(connection, protocol.pack_reply(failure_of(error)), wait=False)
    except OSError:
        return  # he does not want to know


def _signals() -> socket.socket:
    woken, waking = socket.socketpair()
    waking.setblocking(False)
    signal.set_wakeup_fd(waking.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return woken


def listen(path: str, *, mode: int, uid: int = -1, gid: int = -1) -> socket.socket:
    """A socket at *path* that listens.

    :param mode: its permissions; :param uid: its owner, :param gid: its group, -1: as they come.
    :raises HelperError: naming the path: a helper is there, or what is no socket, or it cannot be made there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _remove_stale(path)
        before = os.umask(0o777)  # nobody may connect before the mode is right
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        os.chown(path, uid, gid)
        Path(path).chmod(mode)
    except OSError as error:
        listener.close()
        raise HelperError(f"{path}: {error.strerror or error}") from error
    except HelperError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """What a helper that was killed has left: a socket, and nothing else that is there.

    :raises HelperError: a helper is there, or what is no socket: of that connect() says the same as of a socket
        that nobody listens on.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise HelperError(f"{path}: is there, and is no socket: remove it, or choose another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        try:
            asking.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise HelperError(f"{path}: a helper is there already")


def inherited() -> socket.socket | None:
    """The socket that systemd listens on for us, or None."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=_FIRST_PASSED)
