"""One command in a machine, for one connection of :mod:`migrate.lab.vm.client`: fed, and told of.

The end of the connection is the end of the command, as it is for a command in the lab of namespaces whose caller
is killed.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
from typing import Any

from migrate.lab import enter
from migrate.lab.vm import begun, frames
from migrate.lab.vm.feed import Feed

CHUNK = 65536
#: Bytes that wait for the other end; who has more is not read from meanwhile.
ENOUGH = 1 << 18
REQUEST_DEADLINE_S = 30.0


def serve_one(connection: socket.socket) -> None:
    """Do what is asked on *connection*, in this process, and end it."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        reader = frames.Reader()
        request, early = _request(connection, reader)
        if request["mode"] == "spawn":
            connection.sendall(frames.frame(frames.SPAWNED, begun.detached(request)))
        else:
            Command(connection, reader, request).run(early)
    except (OSError, ValueError, KeyError, frames.Unexpected):
        pass  # The asking end is gone, or is none.
    finally:
        os._exit(0)


def _request(
    connection: socket.socket, reader: frames.Reader
) -> tuple[dict[str, Any], list[tuple[int, bytes]]]:
    """Return the first frame, and those that came with it."""
    connection.settimeout(REQUEST_DEADLINE_S)
    found: list[tuple[int, bytes]] = []
    while not found:
        data = connection.recv(CHUNK)
        if not data:
            raise frames.Unexpected("no request")
        found = reader.add(data)
    connection.settimeout(None)
    return json.loads(found[0][1]), found[1:]


class Command:
    """A command in the foreground, and what waits to go to it and to the asking end."""

    def __init__(self, connection: socket.socket, reader: frames.Reader, request: dict[str, Any]) -> None:
        self.connection, self.reader = connection, reader
        self.to_connection = bytearray()
        os.setsid()  # A group of the command's own, for what a terminal would send to all of it.
        start = begun.on_terminal if request["tty"] else begun.on_pipes
        self.pid, given, self.sources = start(request)
        for number in enter.FORWARDED:  # We are in that group, too.
            signal.signal(number, signal.SIG_IGN)
        self.feed = Feed(given, terminal=bool(request["tty"]))
        self.end = os.pidfd_open(self.pid)
        connection.setblocking(False)

    def run(self, early: list[tuple[int, bytes]]) -> None:
        """Serve the command until it has ended and all that it wrote is on its way."""
        self._take(early)
        self._tell_taken(self.feed.give())
        while not self._ended():
            self._step()
        for source in list(self.sources):
            self._read_rest(source)
        self._tell_taken(self.feed.give())
        status = os.waitpid(self.pid, 0)[1]
        self.connection.setblocking(True)
        self.connection.sendall(bytes(self.to_connection) + frames.frame(frames.STATUS, str(status).encode()))

    def _ended(self) -> bool:
        return bool(select.select([self.end], [], [], 0)[0])

    def _wanted(self) -> dict[int, int]:
        """What to wait for: descriptor -> events. The asking end is always heard: it may send a signal."""
        own = self.connection.fileno()
        found = {self.end: select.POLLIN, own: select.POLLIN | select.POLLRDHUP}
        found[own] |= select.POLLOUT if self.to_connection else 0
        if len(self.to_connection) < ENOUGH:
            found |= dict.fromkeys(self.sources, select.POLLIN)
        if self.feed.is_wanted():
            found[self.feed.descriptor] = found.get(self.feed.descriptor, 0) | select.POLLOUT
        return found

    def _step(self) -> None:
        """Wait for something to happen, and move bytes on."""
        poll = select.poll()
        for descriptor, events in self._wanted().items():
            poll.register(descriptor, events)
        ready = dict(poll.poll())
        for source in [one for one in self.sources if one in ready]:
            self._read(source)
        self._exchange(ready.get(self.connection.fileno(), 0))
        self._tell_taken(self.feed.give(ready.get(self.feed.descriptor, 0)))

    def _read(self, source: int, most: int = CHUNK) -> int:
        """Take what the command wrote, *most* bytes of it; return how many there were."""
        try:
            data = os.read(source, most)
        except BlockingIOError:
            return 0
        except OSError:  # A terminal without anybody at its other side.
            data = b""
        if data:
            self.to_connection += frames.frame(self.sources[source], data)
        else:
            del self.sources[source]
        return len(data)

    def _read_rest(self, source: int) -> None:
        """Take what a command that has ended has left. What it has started may go on to write, for ever."""
        os.set_blocking(source, False)
        left = begun.capacity(source)
        while left > 0 and (size := self._read(source, min(left, CHUNK))):
            left -= size

    def _exchange(self, events: int) -> None:
        if self.to_connection and events & select.POLLOUT:
            with contextlib.suppress(BlockingIOError):
                del self.to_connection[: self.connection.send(self.to_connection)]
        if not events & (select.POLLIN | select.POLLRDHUP | select.POLLHUP | select.POLLERR):
            return
        try:
            data = self.connection.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # The asking end is gone.
            signal.pidfd_send_signal(self.end, signal.SIGKILL)
            os._exit(0)
        self._take(self.reader.add(data))

    def _take(self, found: list[tuple[int, bytes]]) -> None:
        for kind, data in found:
            if kind == frames.SIGNAL:
                self._pass(*data)
            elif kind == frames.INPUT:
                self.feed.add(data)
            elif kind == frames.SIZE and self.feed.terminal:
                begun.resize(self.feed.descriptor, *struct.unpack(">HH", data))

    def _pass(self, number: int, to_all: int) -> None:
        """Send the command a signal; one that a terminal sent its whole group, unless it has a terminal itself."""
        with contextlib.suppress(ProcessLookupError):
            if to_all and not self.feed.terminal:
                os.kill(0, number)
            else:
                signal.pidfd_send_signal(self.end, number)

    def _tell_taken(self, size: int) -> None:
        if size:
            self.to_connection += frames.frame(frames.TAKEN, str(size).encode())
