"""The receiving end of one connection."""

from __future__ import annotations

import hashlib
import socket
import threading


class Drain:
    """Reads a socket to its end in a thread; knows the length and the digest."""

    def __init__(self, sock: socket.socket) -> None:
        self.length, self.error, self._hash, self._sock = 0, "", hashlib.sha256(), sock
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while data := self._sock.recv(1 << 20):
                self._hash.update(data)
                self.length += len(data)
        except OSError as error:
            self.error = str(error)

    def finished(self, expected: bytes, what: str = "a connection", deadline_s: float = 20.0) -> None:
        """Wait for the end; what came must be *expected*."""
        self._thread.join(deadline_s)
        assert not self._thread.is_alive(), f"{what}: only {self.length} of {len(expected)} bytes, no end"
        assert (self.error, self.length) == ("", len(expected)), what
        assert self._hash.digest() == hashlib.sha256(expected).digest(), what
