"""How all that the user sees is written: in a thread, so that nobody waits for a terminal.

One that is stopped, or a pipe that nobody reads, holds up nothing. A broken one is ignored; it must not change the
outcome.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TextIO

from migrate import limits, threads
from migrate.report.report import Report
from migrate.report.text import clean, render

_MAX_WAITING = 1000


class Output:
    """Does the writing, in a thread, in order; what is too much to keep is dropped."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="ui", daemon=True)
        threads.start(self._thread)

    def submit(self, write: Callable[[], None]) -> None:
        """Have *write* called soon; errors of writing are ignored."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(write)

    def drain(self, timeout_s: float = limits.SHOW_S) -> None:
        """Wait until all is written, but not for ever; nothing can be submitted afterwards."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (write := self._waiting.get()) is not None:
            # ValueError: the file was closed.
            with contextlib.suppress(OSError, ValueError):
                write()


class Base:
    """What the user interfaces share: the thread."""

    def __init__(self, out: TextIO, err: TextIO, *, verbose: bool) -> None:
        self._out, self._err, self._verbose = out, err, verbose
        self._output = Output()

    def named(self, migration_id: str) -> None:
        """See :class:`migrate.report.observer.Observer`: it is in the report."""

    def finished(self, report: Report) -> None:
        """See :class:`migrate.report.observer.Observer`."""
        self._output.submit(lambda: self._report(report))
        self._output.drain()

    def event(self, text: str) -> None:
        """See :class:`migrate.report.observer.Observer`."""
        self._say(text)

    def _report(self, report: Report) -> None:
        write(self._out, "\n".join(render(report, verbose=self._verbose)))

    def _say(self, text: str) -> None:
        self._output.submit(lambda: write(self._err, f"migrate: {clean(text)}"))


def write(file: TextIO, line: str) -> None:
    """A line, at once."""
    file.write(line + "\n")
    file.flush()
