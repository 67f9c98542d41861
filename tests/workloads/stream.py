"""Receives 1000 numbered messages a second over one connection: ``stream.py ADDRESS PORT``."""

from __future__ import annotations

import struct
import sys
import time

from asking import DEADLINE_S, Silence, Until, ask, connect, tell

MESSAGE = struct.Struct("!Q56x")
WARM_UP_MESSAGES = 300


def main(address: str, port: int) -> None:
    """Measure the time between arrivals, and check the numbers."""
    sock = connect(address, port, "stream")
    sock.settimeout(DEADLINE_S)
    until, silence, expected, error = Until(), Silence(), 0, ""
    before = now = time.monotonic()
    unread, warm = b"", False
    try:
        while not until.over(now):
            data = sock.recv(1 << 16)
            if not data:
                raise ConnectionAbortedError("closed by the other side")
            before, now = now, time.monotonic()
            silence.was(before, now)
            unread += data
            whole = len(unread) // MESSAGE.size * MESSAGE.size
            for (number,) in MESSAGE.iter_unpack(unread[:whole]):
                if number != expected:
                    raise ValueError(f"message {number} instead of {expected}")
                expected += 1
            unread = unread[whole:]
            if not warm and expected > WARM_UP_MESSAGES:
                warm, silence = True, Silence()
                ask(address, port, "reset")
                until.ready()
    except (OSError, ValueError) as problem:
        error = str(problem)
    tell(address, port, {**silence.said(), "messages": expected, "error": error})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
