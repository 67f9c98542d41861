"""`migrate ps`: the trees that have connections, and what is in their way; nothing notices that it looks."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from harness import json_lines
from harness.hosts import connect, listeners, spawn
from harness.migrate import run_migrate
from harness.wait import eventually

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

#: A master whose worker has a listener and a connection, and, from a shell that it starts, a tree of its own.
SERVER = """import os, socket, subprocess, sys, time
open("/proc/self/comm", "w").write("master")
listener = socket.create_server(("10.77.1.100", 7421))
if os.fork():
    subprocess.run(["setsid", "sh", "-c", sys.executable + " -c '" + sys.argv[1] + "'; true"])
    time.sleep(1000)
connection, _ = listener.accept()
time.sleep(1000)
"""
INNER = """import os, socket, time
listener = socket.create_server(("10.77.1.100", 7422)); os.eventfd(1, os.EFD_SEMAPHORE); time.sleep(1000)
"""
#: Processes that listen for a moment, all the time.
COMING_AND_GOING = """import os, socket, time
while True:
    if not os.fork():
        with socket.create_server(("10.77.1.1", 0)):
            time.sleep(0.01)
        os._exit(0)
    time.sleep(0.005)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


def trees(host: Host) -> dict[int, dict[str, Any]]:
    """What is told, by PID."""
    return {one["pid"]: one for one in json_lines.read(host.exec(["migrate", "ps", "--json"]).stdout)}


def test_trees_with_their_reasons(lab: Lab) -> None:
    origin, peer = lab.hosts["origin"], lab.hosts["peer"]
    pid = spawn(origin, [sys.executable, "-c", SERVER, INNER.strip()])
    eventually(lambda: listeners(origin, 7421, 7422) == 2, "both listen")
    with connect(peer, "10.77.1.100", 7421):
        eventually(lambda: trees(origin)[pid]["connections"] == 1, "the worker has accepted")
        before = origin.exec(["cat", f"/proc/{pid}/stat"]).stdout.split()[2:20]
        found = trees(origin)
        assert origin.exec(["cat", f"/proc/{pid}/stat"]).stdout.split()[2:20] == before
        text = origin.exec(["migrate", "ps"]).stdout
    master, (inner,) = found[pid], [one for one in found.values() if one["listens"] == ["10.77.1.100:7422"]]
    assert (master["program"], master["user"], master["listens"]) == ("master", "root", ["10.77.1.100:7421"])
    assert master["addresses"] == ["10.77.1.100"] and master["memory_bytes"] > 1 << 20
    # As the check says it, and the same for the tree that a shell has started.
    for one in (master, inner):
        checked = run_migrate(origin, "--check", one["pid"])
        assert one["reasons"] == checked.report["reasons"]
        assert one["movable"] is (checked.status == 0)
    assert "eventfd-semaphore" in {one["code"] for one in inner["reasons"]}
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert f"{pid:>7} master          root           1 " in text and "listens on 10.77.1.100:7421" in text


def test_of_what_comes_and_goes_it_tells_what_stays(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    spawn(origin, [sys.executable, "-c", COMING_AND_GOING])
    pid = spawn(origin, [sys.executable, "-c", INNER.replace("10.77.1.100", "127.0.0.1")])
    eventually(lambda: listeners(origin, 7422) == 1, "it listens")
    for _ in range(5):
        assert pid in trees(origin)


def test_wrong_words_and_no_root(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    wrong = origin.exec(["migrate", "ps", "nonsense"], check=False)
    assert wrong.returncode == 2 and "unrecognized arguments: nonsense" in wrong.stderr
    nobody = origin.exec(["setpriv", "--reuid=65534", "--clear-groups", "migrate", "ps"], check=False)
    assert nobody.returncode == 3 and "needs root" in nobody.stderr
