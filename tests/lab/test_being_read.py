"""Directories and files that are read when the process is moved: nothing is left out, and nothing comes twice."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, Server, stopped_at
from harness.wait import eventually

NAMES = 3000
#: Reads a directory: some of it at once or when it gets SIGUSR1, and the rest at the next one, or anew.
READER = """
import json, os, signal, sys
folder, first = "/srv/read/many", sys.argv[1]
names = [f"{n:04}" for n in range(3000)]
os.makedirs(folder); [open(f"{folder}/{name}", "w").close() for name in names]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def say(what, text=""): open("/srv/read/new", "w").write(text); os.rename("/srv/read/new", "/srv/read/" + what)
if first == "later":
    say("begun"); signal.sigwait([signal.SIGUSR1])
d = os.open(folder, os.O_RDONLY); entries = os.scandir(d)
seen = [next(entries).name]
say("begun" if first != "later" else "read")
signal.sigwait([signal.SIGUSR1])
seen += [one.name for one in entries]
say("seen", json.dumps([len(seen), len(set(seen))]))
signal.pause()
"""


@pytest.fixture
def bench(bench: InputBench) -> Iterator[InputBench]:
    """The files of these tests are in /srv/read, on both hosts."""
    yield bench
    for host in (bench.origin, bench.destination):
        host.exec(["rm", "-rf", "/srv/read", "/srv/seen"])


@contextlib.contextmanager
def reader(bench: InputBench, first: str) -> Iterator[Server]:
    with (
        bench.program(bench.origin, sys.executable, "-c", READER, first) as pid,
        socket.socket() as nothing,
    ):
        eventually(lambda: "begun" in bench.names(bench.origin, "/srv/read"), "begun")
        yield Server(pid, "", 0, nothing, "")


def sees_all(bench: InputBench, pid: int) -> None:
    bench.origin.exec(["kill", "-USR1", str(pid)])
    eventually(lambda: "seen" in bench.names(bench.origin, "/srv/read"), "seen")
    assert json.loads(bench.read(bench.origin, "/srv/read/seen")) == [NAMES, NAMES]


def test_a_directory_that_is_being_read(bench: InputBench) -> None:
    with reader(bench, "now") as program:
        found = bench.migrate(program.pid, "destination", "--copy-tree", "/srv/read")
        assert (found.status, found.codes) == (3, {("directory-read", "origin")})
        found.must_say("origin", "/srv/read/many, a directory of which", "rewinddir")
        sees_all(bench, program.pid)


def test_a_directory_that_is_read_since_the_check(bench: InputBench) -> None:
    with reader(bench, "later") as program:
        with stopped_at(bench, "CHECKED", program, "--copy-tree", "/srv/read") as run:
            bench.origin.exec(["kill", "-USR1", str(program.pid)])
            eventually(lambda: "read" in bench.names(bench.origin, "/srv/read"), "read")
            run.go()
            found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK")
        found.must_say("origin", "/srv/read/many, a directory of which", "not so when it was checked")
        sees_all(bench, program.pid)


#: Appends a line again and again, as fast as it can for the small files of a test.
WRITER = """
import time
log, number = open("/srv/read/log", "ab", 0), 0
while True: number += 1; log.write(b"line %d\\n" % number); time.sleep(0.0005)
"""
#: Reads them, and says how many it has seen, in order.
FOLLOWER = """
import os, time
log, seen = open("/srv/read/log", "rb"), 0
while True:
    for line in iter(log.readline, b""):
        if line.endswith(b"\\n"):
            seen += 1; assert line == b"line %d\\n" % seen, (line, seen)
    open("/srv/seen", "w").write(str(seen)); time.sleep(0.01)
"""


@pytest.mark.parametrize("words", [["--copy-files"], ["--copy-tree", "/srv/read"]], ids=["file", "tree"])
def test_a_file_that_grows(bench: InputBench, words: list[str]) -> None:
    """Somebody who stays appends to it, while it is dumped and copied too."""
    bench.origin.exec(["mkdir", "-p", "/srv/read"])
    with bench.program(bench.origin, sys.executable, "-c", WRITER):
        eventually(lambda: "log" in bench.names(bench.origin, "/srv/read"), "log")
        with bench.program(bench.origin, sys.executable, "-c", FOLLOWER) as pid:
            eventually(lambda: "seen" in bench.names(bench.origin, "/srv"), "seen")
            found = bench.migrate(pid, "destination", *words)
            assert (found.status, found.report["outcome"]) == (0, "MOVED"), found
            try:
                goes_on(bench, found.report["destination_pid"])
            finally:
                bench.end_there(found)


def goes_on(bench: InputBench, pid: int) -> None:
    """It has what it can have read, whole, and reads on behind that."""
    there = bench.read(bench.destination, "/srv/read/log")
    assert bench.read(bench.origin, "/srv/read/log").startswith(there)
    number = 1 + there.count("\n")
    rest = f"line {number}\n".removeprefix(there.rpartition("\n")[2]) + f"line {number + 1}\n"
    with (bench.destination.root / "srv/read/log").open("a") as log:
        log.write(rest)
    eventually(lambda: bench.read(bench.destination, "/srv/seen") == str(number + 1), f"{number + 1}")
    bench.destination.exec(["kill", "-0", str(pid)])
