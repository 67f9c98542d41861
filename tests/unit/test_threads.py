"""A thread for which there is no room is a reason, not a bug."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from migrate import threads

CODE = """
import resource, threading
from migrate import threads
from migrate.errors import KernelError
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 20),) * 2)
try:
    threads.start(threading.Thread(target=print, name="one too many"))
except KernelError as error:
    print(error, "ulimit -v" in error.problem.hint)
"""


def test_no_room_is_said() -> None:
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
    assert said == "no other thread could be started (one too many) True\n"


def test_one_that_was_started_before_is_a_bug() -> None:
    thread = threading.Thread(target=lambda: None)
    threads.start(thread)
    thread.join()
    with pytest.raises(RuntimeError, match="once"):
        threads.start(thread)
