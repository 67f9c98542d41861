"""COUNT clients that each ask 50 to 150 ms after their last answer: ``crowd.py ADDRESS PORT COUNT``."""

from __future__ import annotations

import heapq
import random
import select
import socket
import sys
import time

from asking import DEADLINE_S, Until, ask, connect, counters, tell

PAUSE_S = (0.05, 0.15)
WARM_UP_S = 1.5
#: The worst answer before the move is that of the warm-up's last second.
BASELINE_S = 1.0
QUESTION = b"sixteen bytes..."


class Crowd:
    """All clients in one thread."""

    def __init__(self, address: str, port: int, count: int) -> None:
        self.epoll = select.epoll()
        self.socks: dict[int, socket.socket] = {}
        self.asked: dict[int, float] = {}
        self.due: list[tuple[float, int]] = []
        self.worst_s, self.answers, self.lost = 0.0, 0, 0
        self.errors: set[str] = set()
        now = time.monotonic()
        for number in range(count):
            sock = connect(address, port, "echo")
            if number % 100 == 99:
                sock.send(b"?")
                sock.recv(64)
            sock.setblocking(False)
            self.socks[sock.fileno()] = sock
            self.epoll.register(sock, select.EPOLLIN)
            heapq.heappush(self.due, (now + random.uniform(*PAUSE_S), sock.fileno()))

    def turn(self, *, asking: bool = True) -> float:
        """Ask what is due, take what has come; return the time."""
        now = time.monotonic()
        while asking and self.due and self.due[0][0] <= now:
            fd = heapq.heappop(self.due)[1]
            self.asked[fd] = time.monotonic()
            self._do(fd, self._ask)
        wait = self.due[0][0] - time.monotonic() if asking and self.due else 0.01
        for fd, _ in self.epoll.poll(max(0.0, min(wait, 0.01))):
            self._do(fd, self._take)
        return now

    def _do(self, fd: int, what: object) -> None:
        try:
            what(fd)  # type: ignore[operator]
        except OSError as error:
            self.errors.add(str(error))
            self.lost += 1
            self.asked.pop(fd, None)
            self.epoll.unregister(fd)
            self.socks.pop(fd).close()

    def _ask(self, fd: int) -> None:
        self.socks[fd].send(QUESTION)

    def _take(self, fd: int) -> None:
        if not self.socks[fd].recv(64):
            raise ConnectionAbortedError("closed by the other side")
        now = time.monotonic()
        took = now - self.asked.pop(fd)
        self.answers += 1
        if took > self.worst_s:
            self.worst_s = took
        heapq.heappush(self.due, (now + random.uniform(*PAUSE_S), fd))


def main(address: str, port: int, count: int) -> None:
    """Ask before, during and after the move."""
    crowd = Crowd(address, port, count)
    begin = time.monotonic()
    while crowd.turn() < begin + WARM_UP_S - BASELINE_S:
        pass
    crowd.worst_s = 0.0
    while crowd.turn() < begin + WARM_UP_S:
        pass
    before_s, crowd.worst_s, crowd.answers = crowd.worst_s, 0.0, 0
    ask(address, port, "reset")
    counted, until = counters(), Until()
    until.ready()
    while not until.over(crowd.turn()):
        pass
    deadline = time.monotonic() + DEADLINE_S
    while crowd.asked and crowd.turn(asking=False) < deadline:
        pass
    added = {name: number - counted[name] for name, number in counters().items()}
    result = {
        "connections": count,
        "lost": crowd.lost + len(crowd.asked),
        "answers": crowd.answers,
        "worst_ms": 1000 * crowd.worst_s,
        "worst_before_ms": 1000 * before_s,
        "error": "; ".join(sorted(crowd.errors)),
    }
    tell(address, port, result | added)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
