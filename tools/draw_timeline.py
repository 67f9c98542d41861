"""Draw docs/timeline.svg anew: a redis server with 100 MB moves in a lab while a client on a third host uses it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import PIPE

from demo import FREE_PID, WORKLOADS, ask, wait_for_redis

from migrate.lab import Lab

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "timeline.svg"
FILL = "for i = 1, 100000 do redis.call('set', 'k' .. i, string.rep(string.char(65 + i % 26), 1000)) end"


def draw(lab: Lab) -> str:
    """Fill a server, move it under load, and return the timeline of that."""
    origin, peer = lab.hosts["origin"], lab.hosts["peer"]
    origin.exec(["sh", "-c", f"echo {FREE_PID} > /proc/sys/kernel/ns_last_pid"])
    command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/"]
    pid = origin.spawn(command)
    wait_for_redis(lab)
    peer.exec(["redis-cli", "-h", lab.service.ipv4, "eval", FILL, "0"])
    words = [sys.executable, str(WORKLOADS / "redis_counter.py"), lab.service.ipv4]
    client = peer.popen(words, stdin=PIPE, stdout=PIPE, text=True)
    client.stdout.readline()
    origin.exec(["migrate", "--report", "/root/timeline.svg", str(pid), "destination"], timeout=60)
    print(ask(client, "stop"))
    client.wait(timeout=10)
    return (origin.root / "root/timeline.svg").read_text()


def main() -> int:
    """Lab up, draw, lab down."""
    with Lab(f"timeline-{os.getpid()}") as lab:
        FIGURE.write_text(draw(lab))
    return 0


if __name__ == "__main__":
    sys.exit(main())
