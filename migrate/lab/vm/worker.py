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
from typing import Any

from migrate.lab.vm import begun, frames

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
        self.to_connection, self.to_input = bytearray(), bytearray()
        self.input_ends = False
        start = begun.on_terminal if request["tty"] else begun.on_pipes
        self.pid, self.input, self.sources = start(request)
        self.end = os.pidfd_open(self.pid)
        os.set_blocking(self.input, False)
        connection.setblocking(False)

    def run(self, early: list[tuple[int, bytes]]) -> None:
        """Serve the command until it has ended and all that it wrote is on its way."""
        self._take(early)
        while not self._ended():
            self._step()
        for source in list(self.sources):
            os.set_blocking(source, False)
            while source in self.sources and self._read(source):
                pass
        status = os.waitpid(self.pid, 0)[1]
        self.connection.setblocking(True)
        self.connection.sendall(bytes(self.to_connection) + frames.frame(frames.STATUS, str(status).encode()))

    def _ended(self) -> bool:
        return bool(select.select([self.end], [], [], 0)[0])

    def _step(self) -> None:
        """Wait for something to happen, and move bytes on."""
        poll = select.poll()
        poll.register(self.end, select.POLLIN)
        wanted = select.POLLRDHUP
        wanted |= select.POLLIN if len(self.to_input) < ENOUGH else 0
        wanted |= select.POLLOUT if self.to_connection else 0
        poll.register(self.connection, wanted)
        if len(self.to_connection) < ENOUGH:
            for source in self.sources:
                poll.register(source, select.POLLIN)
        writing = self.to_input and self.input >= 0 and self.input not in self.sources
        if writing:
            poll.register(self.input, select.POLLOUT)
        ready = dict(poll.poll())
        for source in [one for one in self.sources if one in ready]:
            self._read(source)
        self._exchange(ready.get(self.connection.fileno(), 0))
        self._feed()

    def _read(self, source: int) -> bool:
        """Take what the command wrote; return whether there may be more."""
        try:
            data = os.read(source, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # A terminal without anybody at its other side.
            data = b""
        if not data:
            del self.sources[source]
            return False
        self.to_connection += frames.frame(self.sources[source], data)
        return True

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
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.end, data[0])
            elif kind == frames.INPUT:
                self.to_input += data
                self.input_ends = self.input_ends or not data

    def _feed(self) -> None:
        """Give the command what there is for it, and the end of it."""
        if self.input < 0:
            self.to_input.clear()
            return
        if self.to_input:
            try:
                del self.to_input[: os.write(self.input, self.to_input)]
            except BlockingIOError:
                return
            except OSError:  # It does not read any more.
                self.to_input.clear()
                self.input_ends = True
        if self.input_ends and not self.to_input and self.input not in self.sources:
            os.close(self.input)
            self.input = -1
