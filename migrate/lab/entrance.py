"""Runs programs in hosts of a lab to their end, many of them: one process waits to enter hosts for us.

A Python that starts, only to enter a host, costs 25 ms of processor time; tests ask for a hundred thousand of them.
This one forks, see :func:`migrate.lab.enter.serve`.
"""

import atexit
import contextlib
import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import Sequence

from migrate.lab import enter
from migrate.lab.errors import LabError
from migrate.lab.state import Init

#: How long a command that is killed may take to end, s.
END_DEADLINE_S = 10.0


class Entrance:
    """Enters hosts for the process that made it, and its threads; ends with it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # In a session of its own: what a terminal sends is for us, and we end the command.
            self._server = subprocess.Popen(
                [*enter.PROGRAM, "serve", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.close)

    def close(self) -> None:
        """Nothing more can be run; what runs is not waited for. Does nothing in a child of the owner."""
        if os.getpid() == self.owner:
            self._requests.close()
            self._server.wait()

    def run(
        self, init: Init, command: Sequence[str], given: bytes = b"", timeout_s: float | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run *command* to its end in the host of *init*, where it reads *given*.

        :raises TimeoutExpired: it was killed after *timeout_s*.
        :raises LabError: what enters hosts for us has ended.
        """
        with contextlib.ExitStack() as files:
            streams = [_file(files, "in", given), _file(files, "out"), _file(files, "err")]
            status = self._status(init, command, streams, timeout_s)
            written = [_content(stream) for stream in streams[1:]]
        if status is None:
            raise subprocess.TimeoutExpired(list(command), timeout_s or 0.0, *written)
        return subprocess.CompletedProcess(list(command), os.waitstatus_to_exitcode(status), *written)

    def _status(
        self, init: Init, command: Sequence[str], streams: Sequence[int], timeout_s: float | None
    ) -> int | None:
        """The wait status of *command*; None if it was killed after *timeout_s*."""
        orders, orders_end = os.pipe()
        answer, answer_end = os.pipe()
        with contextlib.ExitStack() as ours:
            ours.callback(os.close, answer)
            try:
                self._ask([init.pid, init.start_ticks, list(command)], [*streams, orders, answer_end])
            except BaseException:
                os.close(orders_end)
                raise
            finally:
                os.close(orders)
                os.close(answer_end)
            # Whatever breaks us off: its end kills the command.
            with os.fdopen(orders_end, "wb", buffering=0) as begin:
                with contextlib.suppress(BrokenPipeError):  # it could not enter, and has told so
                    begin.write(enter.BEGIN)
                if not _readable(answer, timeout_s):
                    begin.close()
                    _readable(answer, END_DEADLINE_S)
                    return None
            return enter.status_in(os.read(answer, 2))

    def _ask(self, request: list[object], descriptors: list[int]) -> None:
        with self._lock:
            try:
                socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
                heard = self._requests.recv(1)
            except OSError as error:
                raise LabError(f"what enters hosts cannot be asked: {error}") from error
        if not heard:
            raise LabError("what enters hosts for this process has ended")


def _file(files: contextlib.ExitStack, name: str, content: bytes = b"") -> int:
    """A file in memory: whoever writes much to it waits for nobody."""
    descriptor = os.memfd_create(name)
    files.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _content(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


def _readable(descriptor: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


_entrance: Entrance | None = None
_making = threading.Lock()


def of_this_process() -> Entrance:
    """The one of this process, made when first asked for: a child of a fork has its own."""
    global _entrance
    with _making:
        if _entrance is None or _entrance.owner != os.getpid():
            _entrance = Entrance()
        return _entrance
