"""A numbered stream in both directions at once, over many connections; each side checks what it gets.

``serve PORT [THREADS [CHILDREN]]``: what is migrated. IPv4 and IPv6. Sends the numbers 0, 1, 2, ... (8
bytes each) on every connection and expects the same from the peer; tells of a number that is not the next by
sending ``ALARM`` and closing. One process with one thread, or so many more threads, and so many children
with as many threads each; whoever is first takes a connection.

``drive PORT ADDRESS COUNT [ADDRESS COUNT ...]``: the peer. Prints ``ready`` when all connections carry
numbers both ways, then on each line read from standard input a line of JSON: numbers sent and received and
errors so far. A line ``stop`` ends it.

Rates are bounded: a burst of numbers every INTERVAL_S on each connection.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import sys
import threading
import time

#: Longer on machines that are emulated.
INTERVAL_S = float(os.environ.get("NUMBERED_INTERVAL_S", "0.004"))
BURST = 4
NUMBER = struct.Struct("!Q")
ALARM = NUMBER.pack(2**64 - 1)


class Stream:
    """One connection: what was sent, what was received, what went wrong."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.sent = 0
        self.received = 0
        self.unsent = b""
        self.unread = b""
        self.error = ""
        self.longest_silence_s = 0.0
        self.heard_at = self.due_at = time.monotonic()

    def send(self) -> None:
        """Send the next burst, if it is due and the last one has left."""
        if self.error:
            return
        now = time.monotonic()
        if not self.unsent:
            if now < self.due_at:
                return
            self.due_at = now + INTERVAL_S
            self.unsent = b"".join(NUMBER.pack(self.sent + i) for i in range(BURST))
            self.sent += BURST
        try:
            self.unsent = self.unsent[self.connection.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self.error = f"send: {error.strerror}"

    def receive(self) -> None:
        """Take what has arrived and check it."""
        try:
            data = self.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            self.error = self.error or f"recv: {error.strerror}"
            return
        if not data:
            self.error = self.error or "closed by the other side"
            return
        now = time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, now - self.heard_at)
        self.heard_at = now
        self.unread += data
        whole = len(self.unread) // 8 * 8
        for (number,) in NUMBER.iter_unpack(self.unread[:whole]):
            if number != self.received:
                self.error = self.error or f"got {number}, expected {self.received}"
                self.connection.send(ALARM)
                return
            self.received += 1
        self.unread = self.unread[whole:]


def serve(port: int, threads: int = 0, children: int = 0) -> None:
    """Accept for ever, in every thread of every process."""
    listeners = listen(port)
    for _ in range(children):
        if os.fork() == 0:
            break
    for _ in range(threads):
        threading.Thread(target=accept, args=(listeners,), daemon=True).start()
    accept(listeners)


def listen(port: int, backlog: int = 1024) -> list[socket.socket]:
    """Listen on every address of both families; nobody waits in accept."""
    listeners = []
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((address, port))
        listening.listen(backlog)
        listening.setblocking(False)
        listeners.append(listening)
    return listeners


def accept(listeners: list[socket.socket]) -> None:
    """Serve what this thread accepts."""
    selector = selectors.DefaultSelector()
    streams: dict[socket.socket, Stream] = {}
    for listening in listeners:
        selector.register(listening, selectors.EVENT_READ, None)
    while True:
        for key, _ in selector.select(INTERVAL_S):
            if key.data is None:
                try:
                    connection, _ = key.fileobj.accept()
                except BlockingIOError:  # somebody else was first
                    continue
                streams[connection] = Stream(connection)
                selector.register(connection, selectors.EVENT_READ, streams[connection])
            else:
                key.data.receive()
        for connection, stream in list(streams.items()):
            stream.send()
            if stream.error:
                selector.unregister(connection)
                connection.close()
                del streams[connection]


def drive(port: int, where: list[tuple[str, int]]) -> None:
    """Connect, exchange numbers, answer questions on standard input."""
    selector = selectors.DefaultSelector()
    streams = []
    for address, count in where:
        for _ in range(count):
            stream = Stream(socket.create_connection((address, port), timeout=10))
            streams.append(stream)
            selector.register(stream.connection, selectors.EVENT_READ, stream)
    selector.register(0, selectors.EVENT_READ, None)
    ready = False
    while True:
        for key, _ in selector.select(INTERVAL_S):
            if key.data is not None:
                key.data.receive()
                if key.data.error:
                    selector.unregister(key.fileobj)
                continue
            asked = os.read(0, 100)
            print(json.dumps(summary(streams)), flush=True)
            if not asked or b"stop" in asked:
                return
            for stream in streams:
                stream.longest_silence_s = 0.0
        for stream in streams:
            stream.send()
        if not ready and all(stream.received > 2 * BURST for stream in streams):
            ready = True
            print("ready", flush=True)


def summary(streams: list[Stream]) -> dict[str, object]:
    """What happened so far."""
    return {
        "connections": len(streams),
        "sent": sum(stream.sent for stream in streams),
        "received": sum(stream.received for stream in streams),
        "least_received": min(stream.received for stream in streams),
        "each_received": [stream.received for stream in streams],
        "errors": [stream.error for stream in streams if stream.error],
        "longest_silence_ms": round(1000 * max(stream.longest_silence_s for stream in streams), 1),
    }


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*map(int, sys.argv[2:]))
    else:
        pairs = sys.argv[3:]
        drive(int(sys.argv[2]), [(pairs[i], int(pairs[i + 1])) for i in range(0, len(pairs), 2)])
