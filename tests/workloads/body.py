"""The file that is downloaded: its bytes are known on every host."""

import random
import socket
import time

PATTERN = random.Random(7).randbytes(1 << 20)
TWICE = PATTERN * 2
#: What was not sent in time is sent in a hurry afterwards, unless it is more than this.
LATE_S = 0.1


def piece(offset: int, size_bytes: int) -> bytes:
    """The file's bytes from *offset*; at most a megabyte."""
    begin = offset % len(PATTERN)
    return TWICE[begin : begin + size_bytes]


class Body:
    """Sends the file, at a rate if asked to.

    :param rate: bytes a second; 0 is as fast as it goes.
    :ivar chunk_bytes: what is sent at a time.
    """

    CHUNK_BYTES = 1 << 18
    #: A fraction of the gap that is aimed at: the pauses between two chunks are silences too.
    TICK_S = 0.00025

    def __init__(self, total_bytes: int, rate: int, sent: int = 0) -> None:
        self.total_bytes, self.rate, self.sent = total_bytes, rate, sent
        self.due = 0.0
        self.chunk_bytes = int(rate * self.TICK_S) or self.CHUNK_BYTES

    def send(self, sock: socket.socket, until: int) -> None:
        """Send up to the offset *until*; returns when the last of it has been written."""
        while self.sent < until:
            if self.rate:
                self.wait()
            data = piece(self.sent, min(self.chunk_bytes, until - self.sent))
            sock.sendall(data)
            self.sent += len(data)

    def wait(self) -> None:
        """Until the next chunk is due."""
        now = time.monotonic()
        if self.due > now:
            time.sleep(self.due - now)
        self.due = max(self.due, now - LATE_S) + self.TICK_S
