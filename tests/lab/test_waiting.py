"""System calls in which the threads of a program wait: they do not end, there and back where it was.

The judge is the program itself (tests/workloads/waiting.py), which tells what its calls have returned.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import pytest
from harness.hosts import connect, spawn, ss
from harness.migrate import Held, move
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Lab

PORT = 7230

pytestmark = [
    pytest.mark.usefixtures("clean"),
    pytest.mark.skipif(
        os.uname().machine != "x86_64", reason="elsewhere they end, or CRIU begins them again"
    ),
]


def ended(lab: Lab) -> dict[str, Any]:
    """Name -> result, errno and seconds of those of the long calls that have ended."""
    with connect(lab.hosts["peer"], lab.service.ipv4, PORT) as sock:
        found = json.loads(sock.makefile("rb").readline())
    return {name: what for name, what in found.items() if not name.startswith("short")}


def test_they_do_not_end(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    pid = spawn(origin, [sys.executable, str(WORKLOADS / "waiting.py"), str(PORT)])
    eventually(lambda: ss(origin, "-l", f"sport = {PORT}"), "the program listens")
    held = Held(origin, "SWITCHED", "--address", lab.service.ipv4, pid, "destination")
    origin.exec(["kill", f"-{signal.SIGTERM}", str(held.driver)])
    assert held.end().report["outcome"] == "ROLLED_BACK"
    time.sleep(0.2)
    assert ended(lab) == {}
    move(lab, pid, "--address", lab.service.ipv4)
    time.sleep(0.2)
    assert ended(lab) == {}
