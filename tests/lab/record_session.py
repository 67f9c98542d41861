"""record_session.py FILE: moves a small server between two hosts of a lab, and writes their session to FILE.

To be run as root, with what is about to change still as it was: the file becomes `tests/unit/golden/session-N.txt`
of the protocol that the next version must still speak. When it has got more fields it is recorded again, and the
first one kept as `session-N-first.txt`. Needs a C compiler.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from harness.hosts import connect, spawn
from harness.migrate import run_migrate
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Lab
from migrate.link.speech import NEWEST

_PORT = 4711
_AGENT = "/root/recording-agent"


def _server(lab: Lab) -> None:
    """The same program on both hosts."""
    program = lab.hosts["origin"].root / "opt/tiny"
    source = str(WORKLOADS / "tiny.c")
    options = ["-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-s"]
    subprocess.run(["cc", *options, "-o", str(program), source], check=True)
    copy = lab.hosts["destination"].root / "opt/tiny"
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    os.utime(copy, ns=(program.stat().st_atime_ns, program.stat().st_mtime_ns))


def _talk(lab: Lab, over: threading.Event) -> None:
    """Two connections; something is always under way on the first."""
    address = str(lab.service.ipv4)
    first, second = (connect(lab.hosts["peer"], address, _PORT) for _ in range(2))
    first.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # so that something comes in the gap, too
    second.sendall(b"nobody reads this")
    second.shutdown(socket.SHUT_WR)
    number = 0
    while not over.wait(0.005):
        number += 1
        first.sendall(b"%08d" % number)


def main(path: str) -> int:
    """Record it."""
    with Lab(f"record-{os.getpid()}") as lab:
        _server(lab)
        agent = lab.hosts["destination"].root / _AGENT[1:]
        recorder = WORKLOADS / "recording_agent.py"
        agent.write_text(f"#!/bin/sh\nexec {sys.executable} {recorder} /root/session\n")
        agent.chmod(0o755)
        pid = spawn(lab.hosts["origin"], ["/opt/tiny"])
        over = threading.Event()
        talk = threading.Thread(target=_talk, args=(lab, over), daemon=True)
        talk.start()
        eventually(lambda: _connected(lab) >= 2, "two connections")
        moved = run_migrate(lab.hosts["origin"], "--agent", _AGENT, str(pid), "destination")
        over.set()
        talk.join()
        assert moved.status == 0, moved
        said = (lab.hosts["destination"].root / "root/session").read_text()
    Path(path).write_text(f"# A session of protocol {NEWEST}: see golden_session.py.\n{said}")
    return 0


def _connected(lab: Lab) -> int:
    command = ["ss", "-Htn", "state", "connected", f"sport = :{_PORT}"]
    return len(lab.hosts["origin"].exec(command).stdout.splitlines())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
