"""Timers go on where the process goes."""

from __future__ import annotations

import sys

from bad_input_bench import InputBench
from harness.wait import eventually

#: A timer that expires all the time and is not read before there is a file; then it is, and once more.
COUNTS = """
import ctypes, os, pathlib, struct, time
began = time.monotonic()
libc = ctypes.CDLL(None)
timer = libc.timerfd_create(1, os.O_NONBLOCK)
libc.timerfd_settime(timer, 0, struct.pack("qqqq", 0, 10_000_000, 0, 10_000_000), None)
while not os.path.exists("/run/read-timer"): time.sleep(0.01)
first = struct.unpack("q", os.read(timer, 8))[0]
took = time.monotonic() - began
time.sleep(0.5)
second = struct.unpack("q", os.read(timer, 8))[0]
pathlib.Path("/run/timer.new").write_text(f"{first} {took} {second}")
os.rename("/run/timer.new", "/run/timer")
time.sleep(1000)
"""


def test_a_periodic_timer_that_nobody_has_read(bench: InputBench) -> None:
    """It counts on: the kernel sets it again only when it is read, and until then shows one that is not set."""
    with bench.program(bench.origin, sys.executable, "-c", COUNTS) as pid:
        found = bench.migrate(pid, "destination")
        assert (found.status, found.report["outcome"]) == (0, "MOVED"), found
        bench.write(bench.destination, "/run/read-timer", "")
        eventually(lambda: "timer" in bench.names(bench.destination, "/run"), "the timer was read")
        first, took, second = map(float, bench.read(bench.destination, "/run/timer").split())
        bench.destination.exec(["rm", "/run/timer", "/run/read-timer"])
        bench.end_there(found)
    assert first > took / 0.01 / 2, (first, took)
    assert second > 10
