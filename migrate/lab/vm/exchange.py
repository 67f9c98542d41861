"""The bytes and signals on their way between a command in a machine and the standard streams of its asking end.

Nothing here waits for one of them alone: a signal reaches a command that does not read, and one whose output nobody
reads.
"""

import _thread
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import time

from migrate.lab import enter
from migrate.lab.errors import LabError
from migrate.lab.vm import frames
from migrate.lab.vm.given import Given

CHUNK = 65536
#: Signals that ask for an end.
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
#: Those that end the asking end itself where the command has a terminal: an interactive shell ignores them.
HANGING_UP = (signal.SIGHUP, signal.SIGTERM)
#: For so long the machine's kernel may leave one of these unacknowledged.
PATIENCE_S = 2.0
#: And for so long after which another one is no mere echo of it: a terminal and a parent may both send one.
HASTE_S = 0.5
#: Between two looks whether it has.
LOOK_MS = 50
#: Bytes of output that wait for their reader; with more, no more is asked for.
ENOUGH = 1 << 18


class Gone(Exception):
    """The machine has ended, or who served the command there."""


class Silent(Gone):
    """The machine does not answer."""


class Ended(Silent):
    """And a signal, *number*, asks for an end that the machine does not make."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}, since the machine does not answer")
        self.number = number


def signals() -> int:
    """Return a descriptor from which come the signals that this process gets: number, whether its terminal sent it.

    What it ignores it goes on to ignore.
    """
    wanted = {number for number in enter.FORWARDED if signal.getsignal(number) is not signal.SIG_IGN}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    told, end = os.pipe()

    def tell() -> None:
        while True:
            info = signal.sigwaitinfo(wanted)
            os.write(end, bytes([info.si_signo, info.si_code == enter.SI_KERNEL]))

    _thread.start_new_thread(tell, ())
    return told


def size_of_terminal() -> tuple[int, int]:
    """Return rows and columns of the terminal that standard input is."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
    return rows, columns


class Written:
    """What the command has written, until standard output and error take it."""

    def __init__(self) -> None:
        self._waiting = {1: bytearray(), 2: bytearray()}

    def __len__(self) -> int:
        return sum(len(data) for data in self._waiting.values())

    def add(self, descriptor: int, data: bytes) -> None:
        """*data* is to be written to *descriptor*."""
        self._waiting[descriptor] += data

    def wanted(self) -> list[int]:
        """Return the descriptors for which something waits."""
        return [descriptor for descriptor, data in self._waiting.items() if data]

    def write(self, ready: dict[int, int]) -> None:
        """Write to one that is *ready* what it takes without waiting; the other may be the same pipe.

        :raises BrokenPipeError: nobody reads it.
        :raises LabError: it does not take it, its disk being full for one.
        """
        for descriptor in [one for one in self.wanted() if one in ready][:1]:
            data = self._waiting[descriptor]
            try:
                del data[: os.write(descriptor, data[: select.PIPE_BUF])]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise
            except OSError as error:
                name = {1: "output", 2: "error"}[descriptor]
                raise LabError(f"standard {name}: {error.strerror}") from None


class Asked:
    """Whether the machine's kernel has taken a signal that asks for an end. What the command does then is its own.

    Source: tcp(7), SIOCOUTQ.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        #: The first of those that it has not taken, and until when.
        self._waiting: tuple[int, float] | None = None

    def ask(self, number: int) -> None:
        """*number* is about to be sent. :raises Ended: one before it is not taken, so this is meant for us."""
        if number not in ENDING:
            return
        now = time.monotonic()
        if self._waiting is None:
            self._waiting = number, now + PATIENCE_S
        elif now > self._waiting[1] - PATIENCE_S + HASTE_S:
            raise Ended(number)

    def left_ms(self) -> int | None:
        """Return how long to wait for it; None: there is nothing to wait for."""
        if self._waiting is None:
            return None
        return min(LOOK_MS, max(0, round((self._waiting[1] - time.monotonic()) * 1000)))

    def look(self, waits: bool) -> None:
        """Look whether it is taken by now. *waits*: something is not sent yet. :raises Ended: not in time."""
        if self._waiting is None:
            return
        number, deadline = self._waiting
        (unacknowledged,) = struct.unpack("i", fcntl.ioctl(self._connection, termios.TIOCOUTQ, b"\0" * 4))
        if not unacknowledged and not waits:
            self._waiting = None
        elif time.monotonic() >= deadline:
            raise Ended(number)


class Exchange:
    """All of that for one command.

    :param told: see :func:`signals`.
    :param terminal: the command has a terminal, whose size is that of ours.
    :param end: can be read once the machine is no more, which the network does not tell; -1: none.
    """

    def __init__(
        self, connection: socket.socket, told: int, *, terminal: bool = False, end: int = -1
    ) -> None:
        self.connection, self.told, self.terminal, self.end = connection, told, terminal, end
        self.given, self.written = Given(), Written()
        self.reader = frames.Reader()
        self.waiting = bytearray()
        self.status: int | None = None
        self.hurried = self.signalled_since = False
        self.asked = Asked(connection)
        connection.setblocking(False)

    def run(self) -> int:
        """Return the command's wait status, when all that it has written is.

        One with a terminal is left to itself at a signal of :data:`HANGING_UP`, as by a modem that hangs up. Of one
        that a signal of ours has ended, what nobody reads is dropped; of others after one more signal.

        :raises Gone: the machine went away before it said it.
        """
        while self.status is None:
            self._step(self.asked.left_ms())
            if self.status is None:
                self.asked.look(bool(self.waiting))
        while self.written.wanted():
            drops = self.hurried and os.WIFSIGNALED(self.status)
            if not self._step(0 if drops else None) or self.signalled_since:
                break
        return self.status

    def _wanted(self) -> dict[int, int]:
        """What to wait for: descriptor -> events."""
        found = dict.fromkeys(self.written.wanted(), select.POLLOUT) | {self.told: select.POLLIN}
        if self.status is None:
            reads = select.POLLIN if self.hurried or len(self.written) < ENOUGH else 0
            found[self.connection.fileno()] = reads | (select.POLLOUT if self.waiting else 0)
            if self.end >= 0:
                found[self.end] = select.POLLIN
            if self.given.is_wanted():
                found[self.given.descriptor] = select.POLLIN
        return found

    def _step(self, timeout_ms: int | None) -> bool:
        """Move bytes on; return whether any could be."""
        poll = select.poll()
        for descriptor, events in self._wanted().items():
            poll.register(descriptor, events)
        ready = dict(poll.poll(timeout_ms))
        if self.told in ready:
            self._pass_signals()
        if self.given.descriptor in ready and (data := self.given.offer()) is not None:
            self.waiting += frames.frame(frames.INPUT, data)
        if ready.get(self.connection.fileno(), 0) & ~select.POLLOUT:
            self._receive()
        elif self.end in ready:  # What it has sent before has come.
            raise Gone("the machine has ended: its power was cut, or it switched itself off")
        if self.waiting:
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                del self.waiting[: self.connection.send(self.waiting)]
        self.written.write(ready)
        return bool(ready)

    def _pass_signals(self) -> None:
        said = os.read(self.told, 2)
        self.signalled_since = self.status is not None and said[0] != signal.SIGWINCH
        if self.terminal and said[0] == signal.SIGWINCH:
            size = struct.pack(">HH", *size_of_terminal())
            self.waiting += frames.frame(frames.SIZE, size)
            return
        if self.terminal and self.status is None and said[0] in HANGING_UP:
            self.status = said[0]  # As if it had ended of it, which the end of the connection makes true.
        self.hurried = self.hurried or said[0] != signal.SIGWINCH
        self.asked.ask(said[0])
        self.waiting += frames.frame(frames.SIGNAL, said)

    def _receive(self) -> None:
        try:
            data = self.connection.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            raise Silent(f"the machine does not answer any more: {error}") from None
        if not data:
            raise Gone("the machine ended the connection")
        for kind, content in self.reader.add(data):
            if kind == frames.STATUS:
                self.status = int(content)
            elif kind == frames.TAKEN:
                self.given.take(int(content))
            else:
                self.written.add(1 if kind == frames.OUTPUT else 2, content)
