"""Counts the bytes that arrive at this host: ``wire.py DEVICE``.

Prints ``ready``; then reads a line ``BEGAN ENDED``, two times of the monotonic clock, which all hosts of a
lab share, and prints how many bytes arrived between the two, and since it was started.
"""

from __future__ import annotations

import bisect
import json
import os
import sys
import threading
import time

INTERVAL_S = 0.002


class Counter:
    """Looks at the device's counter again and again."""

    def __init__(self, device: str) -> None:
        self.descriptor = os.open(f"/sys/class/net/{device}/statistics/rx_bytes", os.O_RDONLY)
        self.samples = [self.sample()]

    def sample(self) -> tuple[float, int]:
        """Time, and bytes until then."""
        return time.monotonic(), int(os.pread(self.descriptor, 32, 0))

    def run(self) -> None:
        """Count for ever."""
        while True:
            self.samples.append(self.sample())
            time.sleep(INTERVAL_S)

    def until(self, moment: float) -> int:
        """Bytes that had arrived at *moment*."""
        return self.samples[max(0, bisect.bisect(self.samples, (moment, 1 << 62)) - 1)][1]


def main(device: str) -> None:
    """Count until asked."""
    counter = Counter(device)
    threading.Thread(target=counter.run, daemon=True).start()
    print("ready", flush=True)
    began, ended = map(float, sys.stdin.readline().split())
    inside = counter.until(ended) - counter.until(began)
    print(json.dumps({"inside_bytes": inside, "total_bytes": counter.sample()[1] - counter.samples[0][1]}))


if __name__ == "__main__":
    main(sys.argv[1])
