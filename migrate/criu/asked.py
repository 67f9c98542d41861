"""What a container's runtime asks of CRIU, while it waits for the answer: it is started, and held at its request.

A runtime knows best what CRIU has to be told of a container: its root, its mounts, its cgroups, its network. And it
is what keeps the container afterwards. So its own command is started before anything is frozen, with
:mod:`migrate.criu.standin` in the place of CRIU; its small questions are passed on, and its request is held.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrate import limits
from migrate.criu import standin, worker
from migrate.errors import CriuError
from migrate.processes.surroundings import with_personality
from migrate.watch import first_readable, nothing

MESSAGE_BYTES = 1 << 16
#: So much of what a runtime says of its failure is told.
_SAID_BYTES = 2000
LOOK = (
    "Look whether the runtime itself can checkpoint and restore the container there (its --log says why not)."
)
#: A line of a log of runc's; crun's has no such fields.
_LOGGED = re.compile(r'.*? msg="?(.*?)"?$')


@dataclass(frozen=True, slots=True)
class Held:
    """A request that waits.

    :ivar runtime: who asks: our end of the talk with it. :ivar criu: that with CRIU, which has been told nothing.
    :ivar pid: of that CRIU, as this host numbers it. :ivar request: CRIU's criu_req.
    """

    runtime: socket.socket
    criu: socket.socket
    pid: int
    request: Any

    def close(self) -> None:
        """Hang up on both: neither does anything."""
        self.runtime.close()
        self.criu.close()


class Asking:
    """A runtime's command, which runs when the constructor returns.

    :param command: of the runtime, whose path comes first; it writes its log to :func:`said_in` *directory*.
    :param directory: an empty one of ours, root's alone: what the command finds as ``criu`` goes there.
    :param criu: path of the real one.
    :param environment: for it and all that it starts, beside ours; that CRIU gets it whoever starts it.
    :param speaks: it has no log, and says on its standard error what went wrong.
    :param lost: the end of a sentence: what follows, and is to be done, if it fails although the container runs.
    :param heed: called again and again while we wait; what it raises ends the wait.
    :raises CriuError: it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        criu: str,
        *,
        environment: dict[str, str] | None = None,
        personality: int | None = None,
        speaks: bool = False,
        lost: str = "",
        heed: Callable[[], None] = nothing,
    ) -> None:
        self._heed, self._said, self.lost = heed, said_in(directory), lost
        self.name = os.path.basename(command[0])  # noqa: PTH119
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # By its descriptor: a path of a socket may be short only.
            with _short(directory) as near:
                self._listening.bind(f"{near}/socket")
            self._listening.listen()
            own = (environment or {}) | {"TCPCP_HOOKS": "none"}
            path = _placed(directory, criu, own)
            own["PATH"] = f"{path}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"
            with with_personality(personality), self._words(speaks) as words:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    # They may become the container's: of a file of the host CRIU would know nothing.
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    env=os.environ | own,
                    start_new_session=True,
                )
        except OSError as error:
            self._listening.close()
            raise CriuError(f"cannot start {command[0]}: {error.strerror}") from error
        self._ended = -1
        self._watch()

    def _watch(self) -> None:
        try:
            self._ended = os.pidfd_open(self.process.pid)
        except OSError as error:
            self.close(grace_s=0)
            raise CriuError(f"cannot watch {self.name}: {error.strerror}") from error

    @contextlib.contextmanager
    def _words(self, speaks: bool) -> Iterator[int]:
        """A descriptor for what it says beside its log."""
        if not speaks:
            yield subprocess.DEVNULL
            return
        with self._said.open("wb") as file:
            yield file.fileno()

    def request(self, kind: int, timeout_s: float = limits.CRIU_END_S) -> Held:
        """Its request of *kind*, a criu_req_type, which waits from then on; what it asks before that is answered.

        :raises CriuError: it makes none; says why, in its own words.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            talk = self._talk(deadline)
            try:
                held = _passed_on(talk, kind, deadline, self._wait)
            except BaseException:
                talk.close()
                raise
            if held is not None:
                return held

    def _talk(self, deadline: float) -> Held:
        """The next CRIU that it starts, and the talk with it."""
        self._wait(self._listening.fileno(), deadline)
        control, _ = self._listening.accept()
        with control:
            pid = int.from_bytes(
                control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder
            )
            self._wait(control.fileno(), deadline)
            _, descriptors, _, _ = socket.recv_fds(control, 16, 1)
            if not descriptors:
                raise CriuError(f"what {self.name} started as criu has ended", hint=LOOK)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                socket.send_fds(control, [b"-"], [theirs.fileno()])
        return Held(socket.socket(fileno=descriptors[0]), ours, pid, None)

    def _wait(self, descriptor: int, deadline: float) -> None:
        """Wait until *descriptor* can be read. :raises CriuError: the runtime has ended, or the time is over."""
        ready = first_readable(descriptor, self._ended, deadline, self._heed)
        if ready == self._ended:
            raise CriuError(
                f"{self.name} ended without asking CRIU: {self.told() or self.process.wait()}", hint=LOOK
            )
        if ready != descriptor:
            raise CriuError(f"{self.name} did not ask CRIU in time", hint=LOOK)

    def told(self) -> str:
        """What it has said of its failure, in one line; "" if nothing."""
        with contextlib.suppress(OSError):
            text = self._said.read_bytes()[-_SAID_BYTES:].decode(errors="replace")
            lines = (
                _LOGGED.sub(r"\1", line.strip()) for line in text.splitlines() if "level=debug" not in line
            )
            return "; ".join(line for line in lines if line)
        return ""

    def ended(self, within_s: float) -> bool:
        """Whether it has ended, or does within *within_s*."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=within_s)
            return True
        return False

    def close(self, grace_s: float = limits.CRIU_CLOSE_S) -> None:
        """Start no CRIU for it any more, and reap it; kill it if it takes longer than *grace_s*."""
        self._listening.close()
        if not self.ended(grace_s):
            self.process.kill()
            self.process.wait()
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1


def _passed_on(talk: Held, kind: int, deadline: float, wait: Callable[[int, float], None]) -> Held | None:
    """Pass on what is asked in *talk* until the request of *kind* comes; None: it has ended without one.

    :raises CriuError: what is asked is no request.
    """
    while True:
        wait(talk.runtime.fileno(), deadline)
        if not (asked := talk.runtime.recv(MESSAGE_BYTES)):
            talk.close()
            return None
        if (request := worker.parsed_request(asked)) is None:
            raise CriuError("what the runtime asked CRIU is no request", hint=LOOK)
        if request.type == kind:
            return Held(talk.runtime, talk.criu, talk.pid, request)
        talk.criu.send(asked)
        wait(talk.criu.fileno(), deadline)
        if not (answer := talk.criu.recv(MESSAGE_BYTES)):
            talk.close()
            return None
        talk.runtime.send(answer)


def _placed(directory: Path, criu: str, environment: Mapping[str, str]) -> Path:
    """Put the stand-in there; the directory for PATH."""
    path = directory / "bin"
    path.mkdir(mode=0o700)
    program = path / "criu"
    source = Path(standin.__file__).read_text()
    program.write_text(f"#!{sys.executable} -IS\n{source}")
    program.chmod(0o700)
    words = [str(directory / "socket"), criu, *(f"{name}={value}" for name, value in environment.items())]
    (path / standin.WHERE).write_text("".join(f"{word}\0" for word in words))
    return path


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def said_in(directory: Path) -> Path:
    """The file to which a runtime's command writes what went wrong."""
    return directory / "said"
