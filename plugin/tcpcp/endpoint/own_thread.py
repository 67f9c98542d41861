"""A thread of the library's own. Nobody waits until it has begun, which one may never do that finds no memory.

``threading.Thread.start()`` waits for the new thread's first lines without a limit, here with all signals held off.
And where gevent has put itself in the place of threads, that wait lets other greenlets run in the middle of a call.
There this is a greenlet, as every thread of the program.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable

from tcpcp.endpoint import uninterrupted

_PR_SET_NAME = 15

_libc = ctypes.CDLL(None)


class OwnThread:
    """Does *work* once; takes no signals; as a daemon, it ends with the program wherever it is.

    :param name: what ``ps -L`` shows of it, its first 15 characters.
    """

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        self._name, self._work = name, work
        self._starter = self._process = self._ident = 0
        #: Whoever has it first, the thread itself or who does not want it any more.
        self._first = threading.Lock()
        self._not_begun = False
        #: Held until it has ended. To let go of a lock takes no memory.
        self._working = threading.Lock()

    def start(self) -> None:
        """:raises KernelError: as :func:`uninterrupted.start`."""
        self._starter, self._process = threading.get_native_id(), os.getpid()
        self._working.acquire()
        uninterrupted.start(self._run)

    def join(self) -> None:
        """Wait until it has ended. One that has not begun, or was never started, does nothing any more.

        Not from itself, nor in a child of the process: then nothing happens.
        """
        if self._first.acquire(blocking=False):
            self._not_begun = True
        self._wait()

    def finish(self) -> None:
        """As :meth:`join`; what was not begun is done here."""
        if os.getpid() == self._process and self._first.acquire(blocking=False):
            self._not_begun = True
            self._work()
        self._wait()

    def _wait(self) -> None:
        if self._not_begun or self._ident == threading.get_ident() or os.getpid() != self._process:
            return
        with self._working:
            pass

    def _run(self) -> None:
        try:
            self._ident = threading.get_ident()
            if self._first.acquire(blocking=False):
                if threading.get_native_id() != self._starter:
                    _libc.prctl(_PR_SET_NAME, self._name.encode(), 0, 0, 0)
                self._work()
        finally:
            self._working.release()
