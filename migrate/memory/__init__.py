"""What is sent of the tree's memory before the freeze and in it: one module each way, one small protocol.

A way has a say twice: while the tree runs, and when CRIU dumps it. What it sends before are *levels* of images
(:mod:`migrate.memory.rounds`), which the destination nests whoever wrote them: it need not know which way was used.
Nothing is sent after the restore: all of it is there before the process is given away, so that a failure up to then
costs nothing. Who adds a way for which that is not so adds a third call, and says what a failure of it means.

Nor does a tree run before all of its memory is in its place, though userfaultfd(2) is made for that: what threads
do to their mappings meanwhile is told in another order than they have done it, so that a page could be filled in at
the wrong place, or be zeros in a child. What the kernel does: tests/facts/test_told_in_another_order.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from migrate.errors import ImageError

OWN = ("ahead", "none")


class Pages(Protocol):
    """Who takes the pages of one dump; made before CRIU, for one try to freeze."""

    @property
    def descriptor(self) -> int | None:
        """Where CRIU, which inherits it under this number, sends the pages; None: it writes them as images itself.

        To be asked for before :meth:`start`.
        """

    def start(self) -> None:
        """CRIU's process is there, and has inherited the descriptor."""

    def finish(self, timeout_s: float, heed: Callable[[], None]) -> None:
        """CRIU has said that its dump is done: wait until all images are complete.

        :param heed: called again and again meanwhile; what it raises ends the wait.
        :raises MigrateError: they are not.
        """

    def close(self) -> None:
        """Give up, if it is not finished: a dump that goes on fails, and CRIU lets the tree run.

        May be called twice.
        """


class Memory(Protocol):
    """One way, for one migration."""

    def before_freeze(self, sent: Callable[[], None]) -> None:
        """Send what can be sent while the tree runs; it is not stopped or changed, and may do what it likes.

        :param sent: waits until everything in the image directory has left this host.
        :raises MigrateError: nothing has been touched.
        """

    def at_dump(self) -> Pages:
        """For the next try to freeze; :meth:`before_freeze` is over when CRIU sends the first page."""


def make(
    kind: str,
    directory: Path,
    tasks: Callable[[], Iterable[int]],
    grew: Callable[[str], None],
    deadline: float,
) -> Memory:
    """The way *kind*.

    :param directory: the image directory; removing it is all there is to undo.
    :param tasks: the PIDs of the tree as it is now.
    :param grew: called with the name of an image in it, each time when more of it was written.
    :param deadline: on ``time.monotonic()``: nothing is read after it before the freeze.
    :raises ImageError: no such way.
    """
    from migrate.memory.ahead import SentAhead
    from migrate.memory.whole import Whole

    if kind == "ahead":
        return SentAhead(directory, tasks, grew, deadline)
    if kind == "none":
        return Whole()
    raise ImageError(f"no such way to send memory: {kind}", hint=f"One of: {', '.join(OWN)}.")
