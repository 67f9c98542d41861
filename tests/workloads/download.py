"""Downloads a file whose bytes it knows: ``download.py ADDRESS PORT``; ``ready`` means: it has begun."""

from __future__ import annotations

import json
import socket
import sys
import time

from asking import DEADLINE_S, Silence
from body import piece

BUFFER_BYTES = 1 << 18
#: Longer silences are told one by one.
COUNTS_S = 0.0001


def head(sock: socket.socket) -> tuple[int, bytes]:
    """The size of the file, and what of it came with the head."""
    sock.sendall(b"GET /file HTTP/1.0\r\n\r\n")
    said = b""
    while b"\r\n\r\n" not in said:
        said += sock.recv(4096)
    top, _, rest = said.partition(b"\r\n\r\n")
    return int(top.rpartition(b" ")[2]), rest


def ask_first(address: str, port: int) -> None:
    """A connection that the server passes before it is asked for the file."""
    with socket.create_connection((address, port), DEADLINE_S) as first:
        first.sendall(b"?")
        if first.recv(1) != b"?":
            raise ConnectionAbortedError("no answer on the first connection")


def main(address: str, port: int) -> None:
    """Receive, compare, and measure the longest silence."""
    ask_first(address, port)
    sock = socket.create_connection((address, port), DEADLINE_S)
    total, data = head(sock)
    print("ready", flush=True)
    silence, received, error = Silence(), 0, ""
    silences: list[tuple[float, float]] = []
    now = time.monotonic()
    try:
        while True:
            if data != piece(received, len(data)):
                raise ValueError(f"wrong bytes after {received}")
            received += len(data)
            data = sock.recv(BUFFER_BYTES)
            before, now = now, time.monotonic()
            silence.was(before, now)
            if now - before > COUNTS_S:
                silences.append((before, now))
            if not data:
                break
        if received != total:
            raise ValueError(f"{received} bytes instead of {total}")
    except (OSError, ValueError) as problem:
        error = str(problem)
    said = {**silence.said(), "silences_s": silences, "received": received, "error": error}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
