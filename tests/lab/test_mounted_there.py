"""File systems there on which nothing may be executed, or no device opened: refused, and the remedy helps."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, Server
from harness.wait import eventually

#: Says when it has done what is done with the file that is named.
BEGINS = """
import mmap, os, sys, time
file = open(sys.argv[2], "rb")
if sys.argv[1] != "device": kept = mmap.mmap(file.fileno(), 0, 2, 5)
if sys.argv[1] == "deleted": os.unlink(sys.argv[2])
if sys.argv[1] != "device": file.close()
open("/run/begun", "w").close()
while True: time.sleep(1000)
"""
FILE = "/srv/there/it"


@pytest.fixture
def bench(bench: InputBench) -> Iterator[InputBench]:
    """Both hosts have a program of the same build, and a device, on a file system of its own."""
    hosts = (bench.origin, bench.destination)
    for host in hosts:
        words = f"mkdir -p /srv/there && mount -t tmpfs -o exec,dev none /srv/there && cp /bin/true {FILE}"
        host.exec(["sh", "-c", words])
    yield bench
    for host in hosts:
        host.exec(["sh", "-c", "umount /srv/there; rmdir /srv/there; rm -f /run/begun"])


@pytest.mark.parametrize("what", ["mapped", "deleted", "device"])
def test_refused_until_the_remedy_was_tried(bench: InputBench, what: str) -> None:
    option, path = ("nodev", "/srv/there/null") if what == "device" else ("noexec", FILE)
    if what == "device":
        for host in (bench.origin, bench.destination):
            host.exec(["mknod", "-m", "666", path, "c", "1", "3"])
    bench.destination.exec(["mount", "-o", f"remount,{option}", "/srv/there"])
    with (
        bench.server() as server,
        bench.program(bench.origin, sys.executable, "-c", BEGINS, what, path) as pid,
    ):
        eventually(lambda: "begun" in bench.names(bench.origin, "/run"), "begun")
        program = Server(pid, server.address, 0, server.connection, "")
        found = bench.refused(program)
        assert found.codes == {(option, "destination")}
        (said,) = found.report["reasons"]
        bench.destination.exec(["sh", "-c", said["remedy"].partition(": ")[2]])
        moved = bench.migrate(pid, "destination")
        bench.end_there(moved)
        assert moved.report["outcome"] == "MOVED", moved
