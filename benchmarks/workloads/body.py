"""The file that is downloaded: its bytes are known on every host."""

import random
import socket
import time

PATTERN = random.Random(7).randbytes(1 << 20)
TWICE = PATTERN * 2


def piece(offset: int, size_bytes: int) -> bytes:
    """The file's bytes from *offset*; at most a megabyte."""
    begin = offset % len(PATTERN)
    return TWICE[begin : begin + size_bytes]


class Body:
    """Sends the file, at a rate if asked to.

    :param rate: bytes a second; 0 is as fast as it goes.
    """

    CHUNK_BYTES = 1 << 18
    TICK_S = 0.001

    def __init__(self, total_bytes: int, rate: int, sent: int = 0) -> None:
        self.total_bytes, self.rate, self.sent = total_bytes, rate, sent

    def send(self, sock: socket.socket, until: int) -> None:
        """Send up to the offset *until*."""
        size = int(self.rate * self.TICK_S) or self.CHUNK_BYTES
        due = time.monotonic()
        while self.sent < until:
            data = piece(self.sent, min(size, until - self.sent))
            sock.sendall(data)
            self.sent += len(data)
            if self.rate:
                due += self.TICK_S
                time.sleep(max(0.0, due - time.monotonic()))
