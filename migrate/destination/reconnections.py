"""Connections that are made anew for a tree before it is there: CRIU is given them in place of those that it had.

They are made before the freeze, so that nothing is frozen where one cannot be. A program that asks who is at the
other end (SO_PEERCRED) is told who it was on the origin, but not of its process, as it has none yet.

Source: criu/sk-unix.c open_unix_sk(); criu/files.c inherit_fd_lookup_id(); man unix(7), capabilities(7).
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from migrate import limits
from migrate.errors import MigrateError, ProtocolError
from migrate.pb.session_pb2 import Reconnection

#: As journald reads it: for whom, which unit, priority, and four switches.
_OPENING = re.compile(rb"([^\n\0]{0,2000}\n){2}[0-9]{1,3}\n([01]\n){4}")
_SCRIPT = Path(__file__).with_name("connecting.py")
#: Sizes of buffers: the kernel says twice what it was told, and root may ask for more than others.
_FORCED = {7: 32, 8: 33}  # SO_SNDBUF: SO_SNDBUFFORCE, SO_RCVBUF: SO_RCVBUFFORCE
_MOST_OPTION_BYTES = 16


class Reconnections:
    """Sockets, by their inodes on the origin."""

    def __init__(self) -> None:
        self._made: dict[int, socket.socket] = {}
        self._inherited: dict[int, int] = {}

    @contextlib.contextmanager
    def made(self, wanted: Iterable[Reconnection]) -> Iterator[list[int]]:
        """Meanwhile we have them, for a CRIU that is started to inherit them: their descriptors.

        :raises MigrateError: one cannot be made; none is left.
        """
        try:
            for one in wanted:
                self._made[one.inode] = made = socket.socket(socket.AF_UNIX, one.socket_type)
                _connect(made, one)
            self._inherited = {inode: made.fileno() for inode, made in self._made.items()}
            yield [*self._inherited.values()]
        finally:
            for made in self._made.values():
                made.close()
            self._made.clear()

    def fill(self, opts: Any) -> None:
        """Have a restore use them: of CRIU's criu_opts."""
        for inode, descriptor in self._inherited.items():
            opts.inherit_fd.add(key=f"socket:[{inode}]", fd=descriptor)


def _connect(made: socket.socket, one: Reconnection) -> None:
    """:raises MigrateError: nobody listens, or not so. :raises ProtocolError: no origin would ask for that."""
    if not one.name.startswith("/") or (one.opening and not _OPENING.fullmatch(one.opening)):
        raise ProtocolError(f"received a connection to {one.name!r} with {one.opening!r}")
    _set(made, one)
    if error := _as_user(made, one):
        hint = "Look whether the service there runs that listens on it."
        raise MigrateError(f"cannot connect to {one.name}: {error}", hint=hint)
    if one.opening:
        made.shutdown(socket.SHUT_RD)
        made.sendall(one.opening)
    made.setblocking(not one.nonblocking)


def _set(made: socket.socket, one: Reconnection) -> None:
    for number, value in one.options.items():
        if len(value) > _MOST_OPTION_BYTES:
            raise ProtocolError(f"received the socket option {number} of {len(value)} bytes")
        if number in _FORCED:
            half = int.from_bytes(value, sys.byteorder) // 2
            made.setsockopt(socket.SOL_SOCKET, _FORCED[number], half)
        else:
            made.setsockopt(socket.SOL_SOCKET, number, value)


def _as_user(made: socket.socket, one: Reconnection) -> str:
    """Why it failed, or "". In a process of its own: the kernel remembers who has called connect(2)."""
    command = [
        sys.executable,
        "-I",
        "-S",
        str(_SCRIPT),
        str(made.fileno()),
        str(one.uid),
        str(one.gid),
        one.name,
    ]
    try:
        done = subprocess.run(
            command,
            pass_fds=[made.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limits.RECONNECT_S,
        )
    except subprocess.TimeoutExpired:
        return "timed out"
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip() or "failed"
