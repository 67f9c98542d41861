"""Fills in the memory of a tree that was restored without it; goes on whatever becomes of who has started it.

``python -m migrate.memory.filler`` speaks on its standard input, a socket of packets, in JSON:

- ``{"images": DIRECTORY}``: of these it serves CRIU; the answer is how much is ``later``, in bytes: for 0 nothing;
- ``{"keep": [[PID, START], ...]}``: the tree is given to this host, and about to run. Answered with ``kept``; until
  then it ends when the other end of the socket is closed, from then on when all is filled in, which is the last it
  says: ``filled``, in bytes, and ``waited_for``, how often somebody waited for a page.

What it cannot do it answers with ``error``, a sentence. If nobody had the descriptors that CRIU gives it, what is
missing would be zeros: so there is a second process, which has them too, as it shares the table of descriptors,
and the events that were read (:mod:`migrate.memory.heard`). It waits for the end of the first one, and goes on in
its place.

Source: criu/uffd.c for what CRIU says on its socket; clone(2), CLONE_FILES.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from migrate import interrupt
from migrate.errors import ImageError
from migrate.memory.filling_in import FillingIn
from migrate.memory.heard import Heard
from migrate.memory.later_images import LaterImages
from migrate.memory.missing import Missing
from migrate.processes import identity

#: With less to be filled in nothing is left out: it is restored as fast.
LEAST_BYTES = 1 << 20
MESSAGE_BYTES = 1 << 16
#: Where CRIU looks for us, in the directory of the images (criu/include/uffd.h).
_SOCKET = "lazy-pages.socket"
#: CRIU's last word: the tree is about to run (criu/uffd.c LAZY_PAGES_RESTORE_FINISHED).
_FINISHED = 0x52535446
_INT = struct.Struct("=i")
#: For what CRIU sends in one go.
_CRIU_S = 5.0
_SYS_CLONE, _CLONE_FILES = 56, 0x400
_KEPT, _DONE = 0, 1

_libc = ctypes.PyDLL(None, use_errno=True)


class Second(NamedTuple):
    """The second process. :ivar first: a pidfd of the first, which it has as well."""

    pid: int
    pidfd: int
    first: int


class Filler:
    """The program. After :meth:`load` a second process may run in this object too.

    :param control: to who has started it.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._filling = FillingIn()
        #: What both processes know: whether the tree is kept, and whether all is done.
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._images: list[LaterImages] = []
        self._awaited: set[int] = set()
        self._criu: list[socket.socket] = []
        self._tasks: list[identity.Identity] = []
        self._second: list[Second] = []
        self._first = True

    def run(self) -> None:
        """Until all is filled in, or nobody wants it any more."""
        while not (self._shared[_KEPT] and self._filling.done):
            self._turn()
            self._filling.serve()
        self._shared[_DONE] = 1
        self._say(filled=self._filling.filled_bytes, waited_for=self._filling.waited_for)
        for space in self._filling.spaces:
            os.close(space.descriptor)

    def give_up(self, bug: Exception) -> None:
        """We cannot go on: a tree that lives on with wrong memory is worse than one that was killed."""
        self._say(error=str(bug) or type(bug).__name__)
        if self._shared[_KEPT] and not self._first:
            identity.kill(self._tasks)

    def _turn(self) -> None:
        """Do what is to be done now, or wait for it."""
        filling = self._shared[_KEPT] and not self._filling.done
        if self._filling.heard.full:
            self._have_second()
        for descriptor in self._ready(0 if filling else None):
            if descriptor == self._control.fileno():
                self._obey()
            elif descriptor in {one.fileno() for one in self._criu}:
                self._hear_criu()
            elif descriptor in {one.pidfd for one in self._second}:
                self._have_second()
        self._filling.serve()
        if filling:
            self._filling.step()

    def _ready(self, timeout_ms: int | None) -> list[int]:
        poll = select.poll()
        wanted = [*self._filling.descriptors(), *(one.fileno() for one in self._criu)]
        wanted += [one.pidfd for one in self._second]
        if not self._shared[_KEPT]:
            wanted.append(self._control.fileno())
        for descriptor in wanted:
            poll.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _ in poll.poll(timeout_ms)]

    # --- who has started us ----------------------------------------------------------------------------------

    def _obey(self) -> None:
        data = self._control.recv(MESSAGE_BYTES)
        if not data:
            os._exit(0)
        said = json.loads(data)
        try:
            if "images" in said:
                self._say(later=self._load(Path(said["images"])))
            else:
                self._keep([(int(pid), int(start)) for pid, start in said["keep"]])
        except (ImageError, OSError) as error:
            self._say(error=str(error))

    def _load(self, directory: Path) -> int:
        images = LaterImages(directory)
        if images.size_bytes < LEAST_BYTES:
            return 0
        self._images.append(images)
        self._awaited.update(images.tasks)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        here = os.open(".", os.O_RDONLY)
        os.chdir(directory)  # the path may be longer than an address of a socket
        listening.bind(_SOCKET)
        os.fchdir(here)
        os.close(here)
        listening.listen(1)
        self._criu.append(listening)
        return images.size_bytes

    def _keep(self, tasks: Sequence[identity.Identity]) -> None:
        while self._awaited and self._heard_soon():
            self._hear_criu()
        if self._awaited:
            raise ImageError(f"CRIU did not ask for the memory of process {min(self._awaited)}")
        self._tasks = [*tasks]
        self._have_second()
        self._shared[_KEPT] = 1
        self._say(kept=True)

    def _heard_soon(self) -> bool:
        return bool(self._criu and select.select(self._criu, [], [], 0)[0])

    def _say(self, **what: Any) -> None:
        with contextlib.suppress(OSError):  # it is gone, which it may be
            self._control.send(json.dumps(what).encode(), socket.MSG_DONTWAIT)

    # --- CRIU ------------------------------------------------------------------------------------------------

    def _hear_criu(self) -> None:
        """A task of the tree, or that there are no more."""
        (one,) = self._criu
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            connection, _ = one.accept()
            connection.settimeout(_CRIU_S)
            self._criu = [connection]
            one.close()
            return
        data = one.recv(_INT.size, socket.MSG_WAITALL)
        (pid,) = _INT.unpack(data) if len(data) == _INT.size else (_FINISHED,)
        if pid == _FINISHED:
            one.close()
            self._criu.clear()
        elif pid > 0:
            _, descriptors, _, _ = socket.recv_fds(one, 1, 1)
            self._filling.add(descriptors[0], Missing(self._images[0].tasks.get(pid, ())))
            self._awaited.discard(pid)

    # --- the second process ----------------------------------------------------------------------------------

    def _have_second(self) -> None:
        """Have another second process, that knows all that we know; the one before ends."""
        for one in self._second:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
            os.waitpid(one.pid, 0)
            os.close(one.pidfd)
            os.close(one.first)
        us = os.pidfd_open(os.getpid())
        heard = Heard()
        self._filling.hear_into(heard)
        pid = _libc.syscall(_SYS_CLONE, _CLONE_FILES | signal.SIGCHLD, None, None, None, None)
        if pid < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if pid == 0:
            self._wait_for_first(us)
            live(self)  # nothing of what the first was in the middle of
        self._second = [Second(pid, os.pidfd_open(pid), us)]

    def _wait_for_first(self, first: int) -> None:
        """The second process: until the first has ended, whose place it takes."""
        poll = select.poll()
        poll.register(first, select.POLLIN)
        poll.poll()
        if self._shared[_DONE] or not self._shared[_KEPT]:
            os._exit(0)
        os.close(first)
        for one in self._criu:  # all is heard; the first may have closed it, and its number be another's now
            one.detach()
        self._criu.clear()
        self._first, self._second = False, []
        self._filling.hear_again()
        self._have_second()


def live(filler: Filler) -> NoReturn:
    """All that is left to do, and the end of this process."""
    status = 1
    try:
        filler.run()
        status = 0
    except Exception as bug:
        filler.give_up(bug)
    finally:
        os._exit(status)  # no more than that: the other process has our descriptors, too


def main() -> NoReturn:
    """The filler's life."""
    for number in (*interrupt.SIGNALS, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # a lack of memory is not for us to pay
        Path("/proc/self/oom_score_adj").write_text("-1000")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each child that the tree forks is one more
    live(Filler(socket.socket(fileno=0)))


if __name__ == "__main__":
    main()
