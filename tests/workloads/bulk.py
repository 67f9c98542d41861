"""Receives as fast as it can over one connection: ``bulk.py ADDRESS PORT SOURCE during|quiet``.

``during``: also during the move; ``quiet``: before it and after it. Tells the rate of a second before, and of
the second that begins with the end of the longest silence, or with the first byte after the quiet time.
"""

from __future__ import annotations

import socket
import sys
import time

from asking import DEADLINE_S, SETTLE_S, Silence, Until, connect, tell

WARM_UP_S, WINDOW_S = 1.5, 1.0
#: The server is quiet when nothing has come for so long.
QUIET_S = 0.05
BUFFER_BYTES = 1 << 20

Arrivals = list[tuple[float, int]]


def rate(arrivals: Arrivals, begin: float) -> float:
    """Megabytes a second of the window that begins at *begin*."""
    return sum(size for at, size in arrivals if begin <= at < begin + WINDOW_S) / WINDOW_S / 1e6


class Receiver:
    """Notes what arrives, and when."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(BUFFER_BYTES)
        self.arrivals: Arrivals = []
        self.silence = Silence()

    def receive(self) -> float:
        """Wait for data; return when it came."""
        before = self.arrivals[-1][0] if self.arrivals else time.monotonic()
        size = self._sock.recv_into(self._buffer)
        if not size:
            raise ConnectionAbortedError("closed by the other side")
        now = time.monotonic()
        self.arrivals.append((now, size))
        self.silence.was(before, now)
        return now

    def for_a_while(self, seconds: float) -> float:
        """Receive for so long; return the time."""
        end = time.monotonic() + seconds
        while (now := self.receive()) < end:
            pass
        return now


def during(receiver: Receiver) -> tuple[float, float]:
    """Receive all the time; the beginnings of the two windows."""
    begin = receiver.for_a_while(WARM_UP_S) - WINDOW_S
    receiver.silence = Silence()
    until = Until()
    until.ready()
    while not until.over(receiver.receive()):
        pass
    return begin, receiver.silence.ended


def quiet(receiver: Receiver, sock: socket.socket) -> tuple[float, float]:
    """Receive before and after; the beginnings of the two windows."""
    begin = receiver.for_a_while(WARM_UP_S) - WINDOW_S
    sock.send(b"0")
    sock.settimeout(QUIET_S)
    try:
        while True:
            receiver.receive()
    except TimeoutError:
        sock.settimeout(DEADLINE_S)
    until = Until()
    until.ready()
    while not until.over(time.monotonic() + SETTLE_S):
        time.sleep(QUIET_S)
    sock.send(b"1")
    first = receiver.receive()
    receiver.for_a_while(WINDOW_S)
    return begin, first


def main(address: str, port: int, source: str, when: str) -> None:
    """Measure."""
    sock = connect(address, port, "bulk", source)
    sock.settimeout(DEADLINE_S)
    receiver, begins, error = Receiver(sock), (0.0, 0.0), ""
    try:
        begins = during(receiver) if when == "during" else quiet(receiver, sock)
    except OSError as problem:
        error = str(problem)
    before, after = (rate(receiver.arrivals, begin) for begin in begins)
    result = {**receiver.silence.said(), "before_mb_per_s": before, "after_mb_per_s": after, "error": error}
    tell(address, port, result)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
