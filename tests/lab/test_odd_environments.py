"""A walk over odd environments: each move has several of them, drawn; driver and agent take none for granted.

``ODD_WALKS=n`` takes n walks instead of two; ``ODD_SEED`` repeats one.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import connect, spawn, ss
from harness.left import processes
from harness.migrate import run_migrate
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

PORTS = itertools.count(7250)
CONNECTIONS = 1100
PROGRAMS = Path(sys.executable).parent
SEED = int(os.environ.get("ODD_SEED", "0")) or random.randrange(1 << 30)
WALKS = range(int(os.environ.get("ODD_WALKS", "2")))

#: Of each row one is drawn: lines of sh in front of the program.
BEFORE = (
    ("ulimit -Sn 1024", "ulimit -Sn 256", "ulimit -Sn 300"),
    ("umask 000", "umask 077", "umask 777"),
    ("export LC_ALL=C", "export LC_ALL=POSIX LANG=x", "export LC_ALL=x.KOI8-R", "export PYTHONIOENCODING=ascii"),
    ("unset HOME", "export HOME=/nonexistent", "export HOME="),
    ("unset PATH", "export PATH=", "export PATH=/nonexistent"),
    ("export TMPDIR=/nonexistent", "cd /proc", "mkdir -p /tmp/gone; cd /tmp/gone; rmdir /tmp/gone"),
    ("ulimit -Sf 8", "ulimit -Sv 400000", "true"),
)  # fmt: skip
CLOSED = ("", "<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-")


def script(draw: random.Random, program: Path, words: str, closed: str) -> str:
    """A program of sh that starts *program* in what was drawn."""
    lines = [draw.choice(row) for row in BEFORE]
    return "\n".join(["#!/bin/sh", *lines, f"exec {program} {words} {closed}", ""])


def put(host: Host, path: str, text: str) -> None:
    host.exec(["/bin/sh", "-c", f"printf %s {shlex.quote(text)} > {path}; chmod 755 {path}"])


def established(host: Host, port: int) -> int:
    return host.exec(["ss", "-tnH", "state", "established", f"sport = {port}"]).stdout.count("\n")


@pytest.fixture
def crowd(lab: Lab) -> Iterator[tuple[int, int]]:
    """A server with more connections than most may open files: its PID and port."""
    origin, port = lab.hosts["origin"], next(PORTS)
    pid = spawn(origin, [sys.executable, str(WORKLOADS / "obedient.py"), str(port)])
    eventually(lambda: ss(origin, "-l", f"sport = {port}"), "it listens")
    socks = [connect(lab.hosts["peer"], lab.service.ipv4, port) for _ in range(CONNECTIONS)]
    eventually(lambda: established(origin, port) == CONNECTIONS, "all are accepted", 60)
    yield pid, port
    for sock in socks:
        sock.close()


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk(lab: Lab, crowd: tuple[int, int], walk: int) -> None:
    draw = random.Random(SEED + walk)
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    (pid, port), closed = crowd, draw.choice(CLOSED)
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
    assert established(destination, port) == CONNECTIONS
    # It has kept its own limits and umask.
    shown = destination.exec(
        ["grep", "-E", "open files|^Umask", f"/proc/{pid}/limits", f"/proc/{pid}/status"]
    )
    assert "20000" in shown.stdout and "0022" in shown.stdout
    for host, path in ((origin, "/tmp/odd-driver"), (origin, report), (destination, "/tmp/odd-agent")):
        host.exec(["rm", "-f", path])


@pytest.mark.parametrize(
    ("limit", "codes"), [("-n 600", ["descriptors", "high-descriptor"]), ("-f 8", ["host-problem"])]
)
def test_hard_limits_are_counted_before(
    lab: Lab, crowd: tuple[int, int], limit: str, codes: list[str]
) -> None:
    """A root without CAP_SYS_RESOURCE cannot raise them: refused on the host where they are, nothing is frozen."""
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    if origin.exec(["capsh", "--has-p=cap_sys_resource"], check=False).returncode == 0:
        pytest.skip("root may raise hard limits here")
    put(destination, "/tmp/odd-agent", f"#!/bin/sh\nulimit {limit}\nexec {PROGRAMS / 'migrate-agent'}\n")
    moved = run_migrate(origin, "--agent", "/tmp/odd-agent", str(crowd[0]), "destination")
    assert moved.status == 3
    found = [
        one for one in moved.report["reasons"] if one["code"] != "criu-broken"
    ]  # unless that is remembered
    assert [(one["role"], one["code"]) for one in found] == [("destination", code) for code in codes]
    assert all("ulimit" in one["remedy"] for one in found)
    destination.exec(["rm", "/tmp/odd-agent"])
