"""The server that is moved: one thread, every kind of load.

``server.py PORT [MEMORY_MB [WRITES_MB_PER_S]]``. The first line of a connection says what it is for:

- ``echo``: sends back what comes;
- ``stream``: sends a numbered message of 64 bytes every millisecond, those that are overdue at once;
- ``sink``: reads;
- ``bulk``: sends as fast as it can; a byte from the peer ends that, the next one begins it again;
- ``reset``, ``report``: begins to count anew, or answers with a line of JSON: the longest time for which this
  process did not run (it looks at the clock at least every millisecond), and how many connections it has.

That is the wall clock: CRIU restores a process into a time namespace where the monotonic one stood still.
MEMORY_MB of random bytes are held, no two pages equal; of them WRITES_MB_PER_S are written, page by page.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

TICK_S = 0.001
PAGE_BYTES = 4096
CHUNK_BYTES = 1 << 18
MESSAGE = struct.Struct("!Q56x")
#: Never more written at once than in this time, however long the process did not run.
CATCH_UP_S = 0.01


class Server:
    """Everything the process holds."""

    def __init__(self, port: int, memory_mb: int = 0, writes_mb_per_s: float = 0) -> None:
        self.listening = socket.create_server(("0.0.0.0", port), backlog=4096)
        self.listening.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listening, select.EPOLLIN)
        self.connections: dict[int, socket.socket] = {}
        self.handlers: dict[int, Callable[[socket.socket], None]] = {}
        self.streams: dict[int, list[float]] = {}
        self.paused: set[int] = set()
        self.payload = os.urandom(CHUNK_BYTES)
        self.memory = [bytearray(os.urandom(1 << 20)) for _ in range(memory_mb)]
        self.pages_per_s = writes_mb_per_s * (1 << 20) / PAGE_BYTES
        self.written = 0.0
        self.last = time.time()
        self.longest_s = 0.0

    def run(self) -> None:
        """Serve for ever."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Wait at most a tick, and do what there is to do."""
        for fd, _ in self.epoll.poll(TICK_S):
            if fd == self.listening.fileno():
                self.accept()
                continue
            try:
                self.handlers[fd](self.connections[fd])
            except BlockingIOError:
                pass
            except OSError:
                self.forget(fd)
        self.tick()

    def tick(self) -> None:
        """Look at the clock, and do what is due."""
        wall = time.time()
        passed_s = wall - self.last
        self.last = wall
        if passed_s > self.longest_s:
            self.longest_s = passed_s
        if self.pages_per_s:
            self.write_pages(min(passed_s, CATCH_UP_S) * self.pages_per_s)
        for fd in list(self.streams):
            self.send_due(fd, time.monotonic())

    def write_pages(self, count: float) -> None:
        """Change some pages, one after the other."""
        begin, self.written = int(self.written), self.written + count
        pages = (1 << 20) // PAGE_BYTES
        for number in range(begin, int(self.written)):
            block = self.memory[number // pages % len(self.memory)]
            block[number % pages * PAGE_BYTES] ^= 0xFF

    def send_due(self, fd: int, now: float) -> None:
        """Send the messages of one stream whose time has come."""
        stream = self.streams[fd]
        try:
            while stream[0] <= now:
                self.connections[fd].send(MESSAGE.pack(int(stream[1])))
                stream[0] += TICK_S
                stream[1] += 1
        except BlockingIOError:
            pass
        except OSError:
            self.forget(fd)

    def accept(self) -> None:
        """Take all connections that wait."""
        while True:
            try:
                sock, _ = self.listening.accept()
            except BlockingIOError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.adopt(sock, self.begin)

    def adopt(self, sock: socket.socket, handler: Callable[[socket.socket], None]) -> None:
        """Serve a connection."""
        sock.setblocking(False)
        self.connections[sock.fileno()] = sock
        self.handlers[sock.fileno()] = handler
        self.epoll.register(sock, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Close a connection."""
        self.epoll.unregister(fd)
        self.connections.pop(fd).close()
        del self.handlers[fd]
        self.streams.pop(fd, None)

    def begin(self, sock: socket.socket) -> None:
        """Read the first line; what follows it is data already."""
        word, _, rest = sock.recv(CHUNK_BYTES).partition(b"\n")
        fd = sock.fileno()
        if word == b"echo":
            self.handlers[fd] = self.echo
            if rest:
                sock.send(rest)
        elif word == b"stream":
            self.handlers[fd] = self.sink
            self.streams[fd] = [time.monotonic(), 0]
        elif word == b"sink":
            self.handlers[fd] = self.sink
        elif word == b"bulk":
            self.handlers[fd] = self.bulk
            self.epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        else:
            if word in (b"reset", b"report"):
                sock.send(self.report(word).encode() + b"\n")
            self.forget(fd)

    def report(self, word: bytes) -> str:
        """Answer a question."""
        if word == b"reset":
            self.longest_s = 0.0
        return json.dumps(
            {
                "longest_ms": 1000 * self.longest_s,
                "connections": len(self.connections) - 1,
                "pid": os.getpid(),
            }
        )

    def echo(self, sock: socket.socket) -> None:
        """Send back what came."""
        data = sock.recv(CHUNK_BYTES)
        if not data:
            raise ConnectionAbortedError
        sock.send(data)

    def sink(self, sock: socket.socket) -> None:
        """Read and forget."""
        if not sock.recv(CHUNK_BYTES):
            raise ConnectionAbortedError

    def bulk(self, sock: socket.socket) -> None:
        """Send a piece, or hear that nothing more is wanted."""
        fd = sock.fileno()
        try:
            if not sock.recv(1):
                raise ConnectionAbortedError
            self.paused ^= {fd}
            self.epoll.modify(fd, select.EPOLLIN | (0 if fd in self.paused else select.EPOLLOUT))
        except BlockingIOError:
            sock.send(self.payload)


if __name__ == "__main__":
    number, *more = sys.argv[1:]
    Server(int(number), *map(int, more)).run()
