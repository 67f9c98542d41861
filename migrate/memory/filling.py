"""Memory that is filled in after the restore, on the destination: this is the user's end of who does it.

See :mod:`migrate.memory.filler`. All pages are on this host before the restore begins; nothing is fetched later.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from migrate import limits
from migrate.errors import CriuError, ImageError
from migrate.memory import userfault
from migrate.processes.identity import Identity
from migrate.watch import first_readable, nothing

#: Whether the destination does it so. Off: what a process with threads may do meanwhile has been tried too little,
#: and wrong memory is worse than a long gap. The tests of this room have it on.
IS_USED = False
PROGRAM = ("-m", "migrate.memory.filler")
_MESSAGE_BYTES = 1 << 16
_HINT = "Look for what ended it (the kernel's log says whether memory ran out), and try again."


class Filling(Protocol):
    """Who fills in the memory of one tree; made early."""

    def prepare(self, images: Path, heed: Callable[[], None] = nothing) -> bool:
        """All images are there: whether CRIU is to leave out memory, for which it will ask who fills it in.

        :param heed: called again and again meanwhile; what it raises ends the wait.
        :raises MigrateError: nothing of the tree is there yet.
        """

    def check(self) -> None:
        """Return while it lives, or is not needed. :raises CriuError: it has ended, and no tree may run."""

    def keep(self, tasks: Sequence[Identity]) -> None:
        """The tree, *tasks*, is about to run: from now on it goes on without us.

        :raises MigrateError: the tree must not run.
        """

    def finish(self, most_s: float) -> Filled:
        """Wait until all is filled in, at most for so long, and for ``limits.FILL_S``."""

    def close(self) -> None:
        """Hang up: it ends, unless the tree was kept. May be called twice."""


class Filled:
    """What came of it.

    :ivar size_bytes: so much was filled in after the restore. :ivar waited_for: how often somebody waited.
    :ivar problem: a sentence: what is not well; "" when nothing is.
    """

    def __init__(self, size_bytes: int = 0, waited_for: int = 0, problem: str = "") -> None:
        self.size_bytes, self.waited_for, self.problem = size_bytes, waited_for, problem


class AtOnce:
    """CRIU restores all memory before the tree runs: see :class:`Filling`."""

    def prepare(self, images: Path, heed: Callable[[], None] = nothing) -> bool:
        """None is left out."""
        return False

    def check(self) -> None:
        """Nobody is needed."""

    def keep(self, tasks: Sequence[Identity]) -> None:
        """Nothing to do."""

    def finish(self, most_s: float) -> Filled:
        """Nothing to wait for."""
        return Filled()

    def close(self) -> None:
        """Nothing to do."""


class Later:
    """A process that fills it in while the tree runs: see :class:`Filling`. It has been started.

    :raises OSError: it cannot be.
    """

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._needed = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *PROGRAM],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    def prepare(self, images: Path, heed: Callable[[], None] = nothing) -> bool:
        """See :class:`Filling`."""
        self._needed = bool(self._ask("later", heed, images=str(images)))
        return self._needed

    def check(self) -> None:
        """See :class:`Filling`."""
        if self._needed and self._process.poll() is not None:
            raise self._gone()

    def keep(self, tasks: Sequence[Identity]) -> None:
        """See :class:`Filling`."""
        if self._needed:
            self._ask("kept", nothing, keep=list(tasks))

    def finish(self, most_s: float) -> Filled:
        """See :class:`Filling`."""
        if not self._needed:
            return Filled()
        try:
            said = self._hear(time.monotonic() + min(most_s, limits.FILL_S), nothing)
        except CriuError as error:
            said = {"error": str(error)}
        if "error" in said:
            return Filled(
                problem=f"the memory of the process was not seen whole on the destination: {said['error']}"
            )
        return Filled(said["filled"], said["waited_for"])

    def close(self) -> None:
        """See :class:`Filling`."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=limits.FILLER_END_S)

    def _ask(self, answer: str, heed: Callable[[], None], **what: Any) -> Any:
        try:
            self._socket.send(json.dumps(what).encode())
        except OSError:
            raise self._gone() from None
        said = self._hear(time.monotonic() + limits.FILLER_S, heed)
        if "error" in said:
            raise ImageError(f"the memory cannot be filled in: {said['error']}")
        return said[answer]

    def _hear(self, deadline: float, heed: Callable[[], None]) -> dict[str, Any]:
        """What it says next. Its end shows in the socket, which a second process may have as well."""
        number = self._socket.fileno()
        if first_readable(number, number, deadline, heed) < 0:
            raise CriuError("who fills in the memory does not answer")
        try:
            data = self._socket.recv(_MESSAGE_BYTES)
        except OSError:
            data = b""
        if not data:
            raise self._gone()
        said = json.loads(data)
        return dict(said)

    @staticmethod
    def _gone() -> CriuError:
        return CriuError("who fills in the memory has ended", hint=_HINT)


def start(*, wanted: bool) -> Filling:
    """Who fills in the memory of the next tree.

    :param wanted: False: CRIU is to restore all, as it does where the kernel has no userfaultfd(2) for us.
    """
    if wanted and userfault.available():
        with contextlib.suppress(OSError):
            return Later()
    return AtOnce()
