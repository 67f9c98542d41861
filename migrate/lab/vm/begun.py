"""How a command of a machine begins: in the foreground on pipes or a terminal, or detached."""

import fcntl
import os
import pty
import signal
import struct
import termios
from typing import Any, NamedTuple

from migrate.lab import enter
from migrate.lab.vm import frames

_MOST_DESCRIPTORS = 65536


class Begun(NamedTuple):
    """A command in the foreground.

    :ivar input: what is written to this descriptor it reads; with a terminal one of *sources*, too.
    :ivar sources: descriptors from which comes what it writes, and the kind of frame that this goes in.
    """

    pid: int
    input: int
    sources: dict[int, int]


def on_pipes(request: dict[str, Any]) -> Begun:
    """In the foreground, with a pipe for each standard stream."""
    pipes = [os.pipe() for _ in range(3)]
    pid = os.fork()
    if pid == 0:
        for number, ends in enumerate(pipes):
            os.dup2(ends[number != 0], number)
        _become(request)
    for number, ends in enumerate(pipes):
        os.close(ends[number != 0])
    return Begun(pid, pipes[0][1], {pipes[1][0]: frames.OUTPUT, pipes[2][0]: frames.ERRORS})


def on_terminal(request: dict[str, Any]) -> Begun:
    """In the foreground, in a session of its own with a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        _become(request)
    resize(terminal, *request["tty"])
    return Begun(pid, terminal, {terminal: frames.OUTPUT})


def resize(terminal: int, rows: int, columns: int) -> None:
    """Give a terminal another size; who runs in it is told by the kernel."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def capacity(source: int) -> int:
    """Return how many bytes at most wait at once in one of the sources of a :class:`Begun`."""
    try:
        return fcntl.fcntl(source, fcntl.F_GETPIPE_SZ)
    except OSError:  # A terminal. Source: drivers/tty/tty_buffer.c, TTYB_DEFAULT_MEM_LIMIT.
        return 2 * 65536


def detached(request: dict[str, Any]) -> bytes:
    """Start a detached command; return its PID, or ``!`` and why there is none, as :func:`enter.detach` says it."""
    answer, answer_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.chdir("/")
        enter.detach(request["log"] or None, request["command"], answer_end)
    os.close(answer_end)
    said = os.read(answer, 4096)
    os.waitpid(child, 0)
    return said


def _become(request: dict[str, Any]) -> None:
    """In the process to be: the command, dead if its keeper is."""
    os.chdir("/")
    os.closerange(3, _MOST_DESCRIPTORS)
    enter.libc.prctl(enter.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.environ.pop("TERM", None)
    if request["term"]:
        os.environ["TERM"] = request["term"]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os._exit(enter.failure(request["command"], enter.execute(request["command"])))
