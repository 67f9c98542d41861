"""A walk over odd environments: each move has several of them, drawn; driver and agent take none for granted.

``ODD_WALKS=n`` takes n walks instead of two; ``ODD_SEED`` repeats one.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge import WORKLOADS, connect, processes, spawn, ss, wait_for

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7250
CONNECTIONS = 1100
PROGRAMS = Path(sys.executable).parent
SEED = int(os.environ.get("ODD_SEED", "0")) or random.randrange(1 << 30)
WALKS = range(int(os.environ.get("ODD_WALKS", "2")))

#: Of each row one is drawn: lines of sh in front of the program.
BEFORE = (
    ("ulimit -n 1024", "ulimit -Sn 256", "ulimit -n 300"),
    ("umask 000", "umask 077", "umask 777"),
    ("export LC_ALL=C", "export LC_ALL=POSIX LANG=x", "export LC_ALL=x.KOI8-R", "export PYTHONIOENCODING=ascii"),
    ("unset HOME", "export HOME=/nonexistent", "export HOME="),
    ("unset PATH", "export PATH=", "export PATH=/nonexistent"),
    ("export TMPDIR=/nonexistent", "cd /proc", "mkdir -p /tmp/gone; cd /tmp/gone; rmdir /tmp/gone"),
    ("ulimit -f 8", "ulimit -v 400000", "true"),
)  # fmt: skip
CLOSED = ("", "<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-")


def script(draw: random.Random, program: Path, words: str, closed: str) -> str:
    """A program of sh that starts *program* in what was drawn."""
    lines = [draw.choice(row) for row in BEFORE]
    return "\n".join(["#!/bin/sh", *lines, f"exec {program} {words} {closed}", ""])


def put(host: Host, path: str, text: str) -> None:
    host.exec(["/bin/sh", "-c", f"printf %s {shlex.quote(text)} > {path}; chmod 755 {path}"])


@pytest.fixture
def crowd(lab: Lab) -> Iterator[tuple[int, list[object]]]:
    """A server with more connections than most may open files."""
    origin = lab.hosts["origin"]
    pid = spawn(origin, [sys.executable, str(WORKLOADS / "obedient.py"), str(PORT)])
    wait_for(lambda: ss(origin, "-l", f"sport = {PORT}"), "it listens")
    socks: list[object] = [connect(lab.hosts["peer"], lab.service.ipv4, PORT) for _ in range(CONNECTIONS)]
    established = ["ss", "-tnH", "state", "established", f"sport = {PORT}"]
    wait_for(lambda: origin.exec(established).stdout.count("\n") == CONNECTIONS, "all are accepted", 60)
    yield pid, socks


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk(lab: Lab, crowd: tuple[int, list[object]], walk: int) -> None:
    draw = random.Random(SEED + walk)
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    pid, closed = crowd[0], draw.choice(CLOSED)
    report = "/tmp/odd.svg"
    words = f"--json --agent /tmp/odd-agent --report {report} {pid} destination"
    driver = script(draw, PROGRAMS / "migrate", words, closed)
    agent = script(draw, PROGRAMS / "migrate-agent", "", draw.choice(("", "2>&-")))
    print(f"ODD_SEED={SEED + walk} ODD_WALKS=1", driver, agent, sep="\n")
    put(destination, "/tmp/odd-agent", agent)
    put(origin, "/tmp/odd-driver", driver)
    done = origin.exec(["/tmp/odd-driver"], check=False, timeout=110)
    said = done.stdout.splitlines()[-1:] if ">&-" not in closed.replace("2>&-", "") else []
    if done.returncode:  # closed streams tell nothing
        put(origin, "/tmp/odd-driver", driver.replace(f"destination {closed}", "destination --check"))
        print(origin.exec(["/tmp/odd-driver"], check=False, timeout=110))
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-2000:])
    assert [json.loads(line)["outcome"] for line in said] == ["MOVED"] * len(said)
    assert "Traceback" not in done.stderr
    assert pid in processes(destination)
    established = ["ss", "-tnH", "state", "established", f"sport = {PORT}"]
    assert destination.exec(established).stdout.count("\n") == CONNECTIONS
    # It has kept its own limits and umask.
    shown = destination.exec(
        ["grep", "-E", "open files|^Umask", f"/proc/{pid}/limits", f"/proc/{pid}/status"]
    )
    assert "20000" in shown.stdout and "0022" in shown.stdout
    for host, path in ((origin, "/tmp/odd-driver"), (origin, report), (destination, "/tmp/odd-agent")):
        host.exec(["rm", "-f", path])
