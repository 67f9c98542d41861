"""Our end of a talk with CRIU that goes by way of :mod:`migrate.criu.relay`."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

from migrate import limits
from migrate.criu import relay
from migrate.watch import first_readable, nothing


class Relayed:
    """The process that passes on, which has begun, and what we say to it.

    :param criu, runtime: the two talks; it has them from now on, and we do not.
    :param pid: of CRIU.
    :ivar socket: our end, in which CRIU seems to be the other one.
    :ivar ended: a descriptor that can be read when the process has ended.
    :ivar whole: whether CRIU has built all: then it goes to its end, once it was kept.
    :raises OSError: it cannot be started, or CRIU has ended.
    """

    def __init__(self, criu: socket.socket, runtime: socket.socket, pid: int) -> None:
        self.whole = False
        self._gave_up = ""
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ended = -1
        try:
            with theirs, criu, runtime:
                ended = os.pidfd_open(pid)
                numbers = [theirs.fileno(), criu.fileno(), runtime.fileno(), ended]
                self._process = subprocess.Popen(
                    [sys.executable, *relay.PROGRAM, *map(str, numbers)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    pass_fds=numbers,
                    cwd="/",
                    start_new_session=True,
                )
            self.ended = os.pidfd_open(self._process.pid)
        except BaseException:
            self.socket.close()
            raise
        finally:
            if ended >= 0:
                os.close(ended)

    def keep(self) -> None:
        """From now on it goes to its end although we die."""
        self._say(relay.KEEP)

    def hang_up(self) -> None:
        """CRIU and the runtime give up, unless the tree is whole."""
        if not self.whole:
            self._say(relay.STOP)
        self.socket.close()

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # what has ended is found out by whoever waits for it next
            self.socket.send(word)

    def gave_up(self, within_s: float = limits.HEED_S) -> str:
        """The stage at which the runtime did, as far as it has; "" if not, or if the talk goes on."""
        output = self._process.stdout
        if output is None or output.closed:
            return self._gave_up
        if first_readable(output.fileno(), self.ended, time.monotonic() + within_s, nothing) >= 0:
            with output:
                self._gave_up = output.readline().decode().strip()
        return self._gave_up

    def close(self) -> None:
        """CRIU has ended: so does it, by itself."""
        self.gave_up(limits.CRIU_CLOSE_S)
        try:
            self._process.wait(limits.CRIU_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
