"""Memory that the kernel finds for the tree while its images come, so that CRIU need not wait for it in the gap.

A page that nobody has had for a while may cost 10 us and more: the kernel has to take it from a cache of files, or
a virtual machine from its host. Whoever gave one back a moment ago leaves it for 1 us to the next one. So a process
(:mod:`migrate.destination.reserving`) takes as much as has arrived, and gives it back just before CRIU builds the
tree. Nothing relies on it: without it the build takes longer.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys

from migrate import limits
from migrate.destination import reserving

#: For less it is not worth a process.
LEAST_BYTES = 64 << 20


class Reserve:
    """That of one migration; there is no process before memory arrives.

    :param most_bytes: never more than this is held: the memory of the tree, for which the check has found room
        beside its images.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._arrived_bytes, self._asked = most_bytes, 0, 0
        self._process: subprocess.Popen[bytes] | None = None
        self._over = most_bytes < LEAST_BYTES

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._process.pid if self._process else None

    def arrived(self, size_bytes: int) -> None:
        """So much memory has come, before the freeze: as much will be needed. Does not wait for it."""
        self._arrived_bytes += size_bytes
        pieces = self._arrived_bytes // reserving.PIECE_BYTES - self._asked
        if self._over or not pieces:
            return
        try:
            self._ask(pieces)
        except OSError:  # there is no room for a process, or it has ended: it does without
            self.let_go()
        self._asked += pieces

    def _ask(self, pieces: int) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", reserving.__file__, str(self._most_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), bytes(pieces))

    def let_go(self) -> None:
        """Have it given back, and take no more. Does not wait; may be called twice."""
        self._over = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Wait until it has been given back, for a moment at most: what builds the tree can begin without."""
        self.let_go()
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(OSError):  # it has been reaped
            ended = os.pidfd_open(process.pid)
            try:
                select.select([ended], [], [], limits.GIVEN_BACK_S)
            finally:
                os.close(ended)
        process.poll()
