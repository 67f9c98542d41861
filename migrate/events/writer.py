"""Writes a log in a thread of its own: nobody who tells waits for a disk, and nothing that fails is an error.

A line is written as a whole, and is there if this process is killed a tenth of a second later: the thread rests so
long when it has written all, for each time it wakes costs whoever has something to tell while the process stands
still more than the rest of it. Nothing is synchronised with the disk.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable

from migrate import limits, threads
from migrate.errors import KernelError
from migrate.events import directory, sweep

_MOST_WAITING = 10_000
_REST_S = 0.1


class Writer:
    """Of the file *name* in the directory of *migration_id*; old logs of others are removed first.

    :ivar problem: why something was lost, or "".
    """

    def __init__(self, migration_id: str, name: str) -> None:
        self.problem = ""
        self._id, self._name = migration_id, name
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._directory = self._file = -1
        self._cut = False
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        try:
            threads.start(self._thread)
        except KernelError as error:
            self.problem = str(error)

    def put(self, line: Callable[[], bytes]) -> None:
        """Have what *line* returns appended soon."""
        self._submit(lambda: self._append(line()))

    def put_beside(self, name: str, data: bytes) -> None:
        """Have *data* written soon to a file *name* beside it, unless there is one."""
        self._submit(lambda: self._beside(name, data))

    def close(self) -> None:
        """Wait until all is written, but not for ever; nothing can be put afterwards."""
        if self._thread.ident is None:
            return
        self._waiting.put(None)
        self._closing.set()
        self._thread.join(limits.LOG_CLOSE_S)
        if self._thread.is_alive():
            self.problem = self.problem or "it cannot be written in time"

    def _submit(self, job: Callable[[], None]) -> None:
        if self._thread.ident is None:
            return
        if self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put(job)
        else:
            self.problem = self.problem or "there was too much to write"

    def _run(self) -> None:
        self._try(self._open)
        self._try(lambda: sweep.sweep(self._id))
        while (job := self._waiting.get()) is not None:
            if self._file >= 0:
                self._try(job)
            if self._waiting.empty():
                self._closing.wait(_REST_S)
        for descriptor in (self._file, self._directory):
            if descriptor >= 0:
                os.close(descriptor)

    def _open(self) -> None:
        self._directory = directory.of(self._id)
        self._file = directory.file(self._directory, self._name, append=True)

    def _append(self, line: bytes) -> None:
        """A line that does not fit is left cut, on a line of its own: others may append to the file, too."""
        data = b"\n" + line if self._cut else line
        self._cut = True
        if os.write(self._file, data) != len(data):
            raise OSError("No space left on device")
        self._cut = False

    def _beside(self, name: str, data: bytes) -> None:
        with contextlib.suppress(FileExistsError):
            descriptor = directory.file(self._directory, name, append=False)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)

    def _try(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # whatever it is, a log is no reason to fail
            what = error.strerror if isinstance(error, OSError) else None
            place = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
            self.problem = self.problem or f"{what or error}{place}"
