"""recording_agent.py FILE: `migrate-agent` whose session is written down: every frame as a line of FILE.

The lines are those of `tests/unit/golden/session-*.txt`, see `tests/unit/golden_session.py`. Pings are left out.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import zlib
from typing import IO

from migrate.link import frames


class Recorder:
    """Stands between driver and agent, and changes nothing."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "w", buffering=1)  # noqa: SIM115, PTH123
        self._lock = threading.Lock()

    def carry(self, who: str, source: int, to: int) -> None:
        """From *source* to *to*, until it ends."""
        decoder, rest = frames.Decoder(), b""
        while data := os.read(source, 1 << 16):
            rest += data
            for frame, payload in decoder.feed(data):
                end = 4 + int.from_bytes(rest[:4], "big") + len(payload)
                kind = frame.WhichOneof("kind")
                if kind != "ping":
                    self._note(who, str(kind), rest[:end])
                rest = rest[end:]
            _write(to, data)
        os.close(to)

    def _note(self, who: str, kind: str, frame: bytes) -> None:
        text = base64.b64encode(zlib.compress(frame, 9)).decode()
        with self._lock:
            self._file.write(f"{who} {kind} {text}\n")


def _write(to: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(to, left) :]


def _pipe(stream: IO[bytes] | None) -> int:
    assert stream is not None
    return os.dup(stream.fileno())


def main() -> int:
    """Until the agent ends; its status."""
    agent = subprocess.Popen(["migrate-agent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    recorder = Recorder(sys.argv[1])
    to, answers = _pipe(agent.stdin), _pipe(agent.stdout)
    assert agent.stdin is not None
    agent.stdin.close()
    threading.Thread(target=recorder.carry, args=("o", 0, to), daemon=True).start()
    recorder.carry("d", answers, os.dup(1))
    return agent.wait()


if __name__ == "__main__":
    sys.exit(main())
