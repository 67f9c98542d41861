"""A child that has been forked before there is work for it: to fork takes 3 ms, and who asks stands still.

It does one hook and ends, for it enters the network namespace of a tree; another one is made when that is done.
If who made it ends it ends, too, for it is not asked any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import NoReturn

from tcpcp.criu import hooks
from tcpcp.criu.hooks import Hook
from tcpcp.criu.once import tell

#: For one hook. Shorter than :data:`tcpcp.criu.hook.WAIT_S`, so that the others are answered.
MOST_S = 8
_BYTES = 256


class Spare:
    """The child.

    :ivar pid: its number.
    :ivar used: it has had its hook.
    :raises OSError: there cannot be one.
    """

    def __init__(self) -> None:
        self.used = False
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self.pid = os.fork()
            except OSError:
                self._ours.close()
                raise
            if self.pid == 0:
                self._ours.close()
                _work(theirs)

    def run(self, asked: Hook) -> bool:
        """As :func:`tcpcp.criu.hooks.run`, there; once. Nobody waits for the child's end.

        What it has taken out of the kernel's filter is freed while it ends, which takes longer than all it does
        (net/netfilter/nf_tables_api.c nft_rcv_nl_event()).

        :raises OSError: it has not heard what was asked.
        """
        self.used = True
        with self._ours:
            words = f"{asked.stage} {asked.root} {asked.caller}"
            socket.send_fds(self._ours, [words.encode()], [asked.directory])
            return self._ours.recv(8) == b"yes"

    def close(self) -> None:
        """It ends."""
        self._ours.close()


def _work(theirs: socket.socket) -> NoReturn:
    """What the child does: two processes must not go on from here, whatever happens."""
    try:
        words, descriptors, _, _ = socket.recv_fds(theirs, _BYTES, 1)
        if words:
            signal.alarm(MOST_S)
            stage, root, caller = words.decode().split()
            done = hooks.run(Hook(stage, descriptors[0], int(root), int(caller), tell))
            theirs.send(b"yes" if done else b"no")
    except BaseException as error:  # whatever it is
        with contextlib.suppress(OSError):
            tell(f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)
