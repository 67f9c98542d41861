"""Many connections in one process or in a tree of them, and a peer that asks over all of them at random.

``many.py serve PORT PROCESSES``: IPv4 and IPv6; PROCESSES that accept from the same listeners, the first the
parent of the others. Each answers every line with the line.

``many.py drive PORT SEED ADDRESS COUNT [ADDRESS COUNT ...]``: opens so many connections, prints ``ready``,
and asks over one after the other in random order, at a rate that does not depend on the answers: however long
there are none, there is always a packet on its way. A line on its standard input has it finish: once more over each
connection, then it prints what happened as a line of JSON. It keeps the connections until its standard input ends.
"""

from __future__ import annotations

import json
import os
import random
import resource
import selectors
import socket
import sys
import time
from collections import deque
from typing import Any

from numbered import listen

QUESTIONS_PER_S = 1000
#: So many questions at once when it finishes.
UNDER_WAY = 100
DEADLINE_S = 60.0


def all_descriptors() -> None:
    """As many descriptors as the system lets us."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve(port: int, processes: int) -> None:
    """Serve for ever."""
    listening = listen(port, 4096)
    for _ in range(processes - 1):
        if os.fork() == 0:
            break
    selector = selectors.DefaultSelector()
    for one in listening:
        selector.register(one, selectors.EVENT_READ, True)
    while True:
        for key, _ in selector.select():
            answer(selector, key.fileobj, is_listener=bool(key.data))  # type: ignore[arg-type]


def answer(selector: selectors.DefaultSelector, sock: socket.socket, *, is_listener: bool) -> None:
    """What is to be done about *sock*."""
    if is_listener:
        try:
            accepted, _ = sock.accept()
        except BlockingIOError:  # another process was faster
            return
        accepted.setblocking(False)
        selector.register(accepted, selectors.EVENT_READ)
        return
    try:
        data = sock.recv(1 << 16)
    except BlockingIOError:
        return
    if data:
        sock.sendall(data)
    else:
        selector.unregister(sock)
        sock.close()


class Peer:
    """The far ends of all connections."""

    def __init__(self, port: int, seed: int, where: list[tuple[str, int]]) -> None:
        self.random = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.sockets = [socket.create_connection((ip, port), DEADLINE_S) for ip, n in where for _ in range(n)]
        #: Questions without an answer, the oldest first, and when they were asked; what came of the next answer.
        self.waiting: dict[socket.socket, deque[tuple[bytes, float]]] = {}
        self.begun: dict[socket.socket, bytes] = {}
        self.asked = self.answered = 0
        self.worst_s = 0.0
        self.told = False
        self.errors: list[str] = []
        for one in self.sockets:
            one.setblocking(False)
            self.selector.register(one, selectors.EVENT_READ)

    def ask(self, sock: socket.socket) -> None:
        """Ask, whether or not there is an answer to the last question."""
        self.asked += 1
        question = b"%d\n" % self.asked
        self.waiting.setdefault(sock, deque()).append((question, time.monotonic()))
        if sock.send(question) < len(question):
            self.errors.append(f"{sock.getsockname()}: no room for {question!r}")

    def look(self, timeout_s: float) -> None:
        """Take the answers that have come."""
        for key, _ in self.selector.select(timeout_s):
            if key.fileobj is sys.stdin:
                self.told = True
                self.selector.unregister(sys.stdin)
                continue
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            try:
                self.take(sock, sock.recv(1 << 16))
            except OSError as error:
                self.fail(sock, str(error))

    def take(self, sock: socket.socket, data: bytes) -> None:
        """Compare what has come with what was asked."""
        *lines, rest = (self.begun.pop(sock, b"") + data).split(b"\n")
        waiting = self.waiting.pop(sock, deque())
        for line in lines:
            question, since = waiting.popleft() if waiting else (b"", time.monotonic())
            self.worst_s = max(self.worst_s, time.monotonic() - since)
            if line + b"\n" != question:
                self.fail(sock, f"{line!r} instead of {question!r}")
                return
            self.answered += 1
        if not data:
            self.fail(sock, f"closed, {len(waiting)} answers are missing")
        if waiting:
            self.waiting[sock] = waiting
        if rest:
            self.begun[sock] = rest

    def fail(self, sock: socket.socket, what: str) -> None:
        """Nothing more is expected of *sock*."""
        self.errors.append(f"{sock.getsockname()}: {what}")
        self.selector.unregister(sock)

    def run(self) -> None:
        """Ask until a line comes, then once more over each."""
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        order: list[socket.socket] = []
        due = time.monotonic()
        while not self.told:
            while due < time.monotonic():
                due += 1 / QUESTIONS_PER_S
                order = order or self.random.sample(self.sockets, len(self.sockets))
                self.ask(order.pop())
            self.look(1 / QUESTIONS_PER_S)
        for one in self.sockets:
            self.ask(one)
            while len(self.waiting) >= UNDER_WAY and not self.errors:
                self.look(0.1)
        deadline = time.monotonic() + DEADLINE_S
        while self.waiting and not self.errors and time.monotonic() < deadline:
            self.look(0.1)

    def result(self) -> dict[str, Any]:
        """What happened."""
        return {
            "connections": len(self.sockets),
            "asked": self.asked,
            "answered": self.answered,
            "worst_ms": round(1000 * self.worst_s, 1),
            "errors": self.errors[:5],
        }


def drive(port: int, seed: int, words: list[str]) -> None:
    """Be the peer."""
    peer = Peer(port, seed, [(ip, int(count)) for ip, count in zip(words[::2], words[1::2], strict=True)])
    peer.run()
    print(json.dumps(peer.result()), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    all_descriptors()
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), int(sys.argv[3]))
    else:
        drive(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
