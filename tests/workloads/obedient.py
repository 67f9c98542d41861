"""A server that does with each connection what the connection's first line says; the peer is the test.

``obedient.py PORT [LOG]``: IPv4 and IPv6, one process. Appends a line to LOG for each connection it accepts.
The first line of a connection is JSON:

- ``{"ask": "report"}``: answers what every connection has received and sent, and closes;
- ``{"ask": "go"}``: lets every connection go on to the second part of its plan, answers ``ok`` and closes;
- otherwise a plan: ``send``, bytes to send; ``shut``, shut down after them; ``read`` (default yes), read
  from the beginning; and after ``go``: ``send_then``, bytes to send, ``shut_then``; now everything is
  read. ``options``: [level, number, value] to set first, and to report; ``set``: to set only. ``name``: how
  the report calls the connection.

What is sent is :func:`content` of the name, so the peer knows it.
"""

from __future__ import annotations

import hashlib
import json
import random
import selectors
import socket
import sys
from typing import Any

from numbered import listen

CHUNK_BYTES = 1 << 16


def content(name: str, size_bytes: int) -> bytes:
    """What the connection *name* sends."""
    return random.Random(name).randbytes(size_bytes)


class Connection:
    """One connection and how far it is with its plan."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        sock.setblocking(False)
        self.sock, self.server = sock, server
        self.plan: dict[str, Any] = {}
        self.left = memoryview(b"")
        self.sent = self.received = 0
        self.digest = hashlib.sha256()
        self.ended = self.shut = False
        self.error = ""

    def handle(self, events: int) -> None:
        """Read and write what can be, and say what is wanted next."""
        try:
            if events & selectors.EVENT_READ:
                self.read()
            if events & selectors.EVENT_WRITE:
                self.write()
        except OSError as error:
            self.error = str(error)
        self.want()

    def want(self) -> None:
        """Tell the selector what this connection waits for."""
        if self.sock.fileno() < 0:
            return
        reading = not self.ended and (not self.plan or self.plan.get("read", True))
        wanted = selectors.EVENT_READ * reading | selectors.EVENT_WRITE * bool(self.left)
        self.server.watch(self, 0 if self.error else wanted)

    def read(self) -> None:
        """Take what has arrived; of a connection without a plan only the first line."""
        if not self.plan:
            line, found, _ = self.sock.recv(CHUNK_BYTES, socket.MSG_PEEK).partition(b"\n")
            if found:
                self.begin(json.loads(self.sock.recv(len(line) + 1)))
            return
        data = self.sock.recv(CHUNK_BYTES)
        self.ended = not data
        self.received += len(data)
        self.digest.update(data)

    def begin(self, plan: dict[str, Any]) -> None:
        if "ask" in plan:
            self.sock.setblocking(True)
            answer = self.server.answer(plan)
            self.sock.sendall(json.dumps(answer).encode())
            self.server.forget(self)
            return
        self.plan = plan
        for level, number, value in [*plan.get("set", ()), *plan.get("options", ())]:
            self.sock.setsockopt(level, number, value.encode() if isinstance(value, str) else value)
        self.all = content(plan["name"], plan.get("send", 0) + plan.get("send_then", 0))
        self.stage(plan.get("send", 0), plan.get("shut", False))

    def go(self) -> None:
        """The second part of the plan."""
        if not self.plan:
            return
        self.plan["read"] = True
        self.stage(self.plan.get("send_then", 0), self.plan.get("shut_then", False))
        self.want()

    def stage(self, size_bytes: int, shut: bool) -> None:
        begin = self.sent + len(self.left)
        self.left = memoryview(self.all)[self.sent : begin + size_bytes]
        self.shut_after = shut
        self.write()

    def write(self) -> None:
        try:
            while self.left:
                count = self.sock.send(self.left[:CHUNK_BYTES])
                self.sent += count
                self.left = self.left[count:]
        except BlockingIOError:
            return
        if self.shut_after and not self.shut:
            self.shut = True
            self.sock.shutdown(socket.SHUT_WR)

    def report(self) -> dict[str, Any]:
        """What happened so far, and the options that the plan asks for."""
        options = [
            [level, number, self.sock.getsockopt(level, number, *([16] if isinstance(value, str) else []))]
            for level, number, value in self.plan.get("options", ())
        ]
        return {
            "sent": self.sent,
            "unwritten": len(self.left),
            "received": self.received,
            "sha256": self.digest.hexdigest(),
            "ended": self.ended,
            "error": self.error,
            "options": [
                [one[0], one[1], one[2].rstrip(b"\0").decode() if isinstance(one[2], bytes) else one[2]]
                for one in options
            ],
        }


class Server:
    """Both listeners and all connections."""

    def __init__(self, port: int, log: str) -> None:
        self.log = open(log, "a", buffering=1) if log else None  # noqa: SIM115, PTH123
        self.selector = selectors.DefaultSelector()
        self.connections: list[Connection] = []
        for listening in listen(port):
            self.selector.register(listening, selectors.EVENT_READ, None)

    def run(self) -> None:
        """Serve for ever."""
        while True:
            for key, events in self.selector.select():
                if key.data is None:
                    accepted, where = key.fileobj.accept()  # type: ignore[union-attr]
                    if self.log:
                        self.log.write(f"accepted from {where[0]}\n")
                    made = Connection(accepted, self)
                    self.connections.append(made)
                    made.want()
                else:
                    key.data.handle(events)

    def watch(self, one: Connection, wanted: int) -> None:
        """Wait for *wanted* on the connection; 0 is nothing."""
        known = self.selector.get_map().get(one.sock)
        if known and known.events == wanted:
            return
        if known:
            self.selector.unregister(one.sock)
        if wanted:
            self.selector.register(one.sock, wanted, one)

    def forget(self, one: Connection) -> None:
        """Close a connection that has been answered."""
        self.watch(one, 0)
        self.connections.remove(one)
        one.sock.close()

    def answer(self, question: dict[str, Any]) -> Any:
        """What is said to a question."""
        if question["ask"] == "go":
            for one in self.connections:
                one.go()
            return "ok"
        return {one.plan["name"]: one.report() for one in self.connections if one.plan}


if __name__ == "__main__":
    Server(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "").run()
