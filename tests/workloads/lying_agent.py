"""lying_agent.py LIE: `migrate-agent` as a host would have it that means no good.

Runs the real agent; what it answers is changed on its way, as LIE says.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

from migrate.link import frames
from migrate.pb import session_pb2 as pb

_ESCAPE = "\x1b[2J\x1b]0;owned\x07"


class Liar:
    """Stands between driver and agent."""

    def __init__(self, lie: str) -> None:
        self._lie, self._out = lie, os.dup(1)
        self._agent = subprocess.Popen(["migrate-agent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()

    def run(self) -> None:
        """Until the agent ends."""
        threading.Thread(target=self._down, daemon=True).start()
        decoder = frames.Decoder()
        while data := os.read(self._agent.stdout.fileno(), 1 << 16):
            for frame, _ in decoder.feed(data):
                self._up(frame, frame.WhichOneof("kind"))

    def _down(self) -> None:
        decoder = frames.Decoder()
        while data := os.read(0, 1 << 16):
            for frame, payload in decoder.feed(data):
                if self._lie == "switched-without" and frame.HasField("switch"):
                    self._say(frame.question, switched=pb.Switched())
                else:
                    self._agent.stdin.write(frames.encode(frame) + payload)
                    self._agent.stdin.flush()
        self._agent.stdin.close()

    def _say(self, question: int, **message: Any) -> None:
        self._put(frames.encode(pb.Frame(question=question, **message)))

    def _put(self, data: bytes) -> None:
        with self._lock:
            left = memoryview(data)
            while left:
                left = left[os.write(self._out, left) :]

    def _up(self, frame: pb.Frame, kind: str | None) -> None:
        lie = self._lie
        if lie == "texts" and kind == "host":
            frame.host.hostname = _ESCAPE * 1000
            frame.host.problems.extend(f"{_ESCAPE} {number}" for number in range(1000))
        if lie == "failure" and kind == "prepared":
            failure = pb.Failure(
                phase=_ESCAPE, kind="Refused", message=_ESCAPE * 100_000, log_tail=[_ESCAPE] * 1000
            )
            self._say(frame.question, failure=failure)
            return
        if lie == "root" and kind == "restored":
            frame.restored.destination_pid = 1
        if lie == "phases" and kind == "restored":
            frame.restored.destination_pid = 0
            phase = pb.PhaseTime(name=_ESCAPE, start_ns=1 << 62, duration_ns=1 << 62)
            frame.restored.phases.extend([phase] * 50_000)
        self._put(self._bytes(frame, kind))
        if lie == "twice" and kind not in ("ping", "hello"):
            self._put(frames.encode(frame))
        if lie == "early" and kind == "prepared":
            for number in (0, frame.question, 1):
                self._say(number, restored=pb.Restored(destination_pid=7))
                self._say(number, switched=pb.Switched())
                self._say(number, activated=pb.Activated(destination_pid=7))

    def _bytes(self, frame: pb.Frame, kind: str | None) -> bytes:
        data = frames.encode(frame)
        if kind != "restored":
            return data
        return {
            "frame-of-nothing": bytes(4),
            "frame-too-long": b"\xff" * 4,
            "frame-of-junk": (1000).to_bytes(4, "big") + b"\xff" * 1000,
        }.get(self._lie, data)


if __name__ == "__main__":
    Liar(sys.argv[1]).run()
