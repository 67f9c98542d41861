"""Asks over one connection, next question after the answer: ``pingpong.py ADDRESS PORT [PAUSE_MS]``."""

from __future__ import annotations

import sys
import time

from asking import Silence, Until, ask, connect, tell

WARM_UP_S = 0.3


def main(address: str, port: int, pause_s: float) -> None:
    """Measure the answers."""
    sock = connect(address, port, "echo")
    until, silence, answers, error = Until(), Silence(), 0, ""
    begin = now = time.monotonic()
    warm = False
    try:
        while not until.over(now):
            sent = time.monotonic()
            sock.send(b"sixteen bytes...")
            if not sock.recv(64):
                raise ConnectionAbortedError("closed by the other side")
            now = time.monotonic()
            answers += 1
            silence.was(sent, now)
            if not warm and now - begin > WARM_UP_S:
                warm, silence = True, Silence()
                ask(address, port, "reset")
                until.ready()
            if pause_s:
                time.sleep(pause_s)
    except OSError as problem:
        error = str(problem)
    tell(address, port, {**silence.said(), "answers": answers, "error": error})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000 if len(sys.argv) > 3 else 0.0)
