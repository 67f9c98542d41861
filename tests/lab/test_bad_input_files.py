"""Acceptance 4: files that the destination lacks or has differently; images damaged or cut on their way."""

from __future__ import annotations

import sys

import pytest
from bad_input_bench import InputBench, stopped_at
from bad_input_breakage import filled, stub

PYTHON = f"#!{sys.executable}\nfrom migrate.destination import agent\n"

DAMAGE = """
from migrate.files.images import Receiver
take = Receiver.take
def damage(self, chunk):
    if chunk.name.startswith("pages") and chunk.data:
        chunk.data = bytes([chunk.data[0] ^ 1]) + chunk.data[1:]
    take(self, chunk)
Receiver.take = damage
agent.main([])
"""
REFUSAL = """
from migrate.destination.destination import Destination
from migrate.errors import CriuError
def restore(self, request):
    raise CriuError("the moon is full", hint="Wait for a new one.")
Destination.restore = restore
agent.main([])
"""


def test_file_and_working_directory_are_missing(bench: InputBench) -> None:
    bench.write(bench.origin, "/srv/one", "one")
    bench.origin.exec(["mkdir", "-p", "/srv/home"])
    with bench.server("cwd=/srv/home", "read=/srv/one") as server:
        found = bench.refused(server)
    assert found.codes == {("no-file", "destination"), ("no-working-directory", "destination")}
    found.must_say("destination", "/srv/one, which the process has open, does not exist", "--copy-files")
    found.must_say("destination", "the working directory /srv/home", "mkdir -p /srv/home", "--copy-files")


def test_file_of_another_size_or_build(bench: InputBench) -> None:
    """What is only read or run is not replaced, even with --copy-files: others may use it there."""
    bench.write(bench.origin, "/srv/sizes", "origin's")
    bench.origin.exec(["cp", "/bin/true", "/srv/code"])
    bench.destination.exec(["cp", "/bin/false", "/srv/code"])
    try:
        with (
            bench.written(bench.destination, "/srv/sizes", "another"),
            bench.server("read=/srv/sizes", "map=/srv/code") as server,
        ):
            found = bench.refused(server, "--copy-files")
    finally:
        bench.destination.exec(["rm", "/srv/code"])
    assert found.codes == {("other-file", "destination"), ("other-build", "destination")}
    found.must_say("destination", "/srv/sizes has 7 bytes there and 8 bytes", "rsync")
    found.must_say("destination", "/srv/code is another build there (build-id", "Install the same version")


def test_copy_files(bench: InputBench) -> None:
    """All that can be copied is, and the process goes on there; an aborted move leaves none of it."""
    bench.write(bench.origin, "/srv/deep/er/read", "read")
    bench.write(bench.origin, "/srv/log", "what the server has written")
    bench.origin.exec(["mkdir", "-p", "/srv/wd"])
    bench.origin.exec(["cp", "/bin/true", "/srv/library"])
    words = ("cwd=/srv/wd", "read=/srv/deep/er/read", "write=/srv/log", "map=/srv/library")
    before = bench.names(bench.destination, "/srv")
    with bench.written(bench.destination, "/srv/log", "old"), bench.server(*words) as server:
        with stub(bench.destination, PYTHON + REFUSAL) as path:
            found = bench.refused(server, "--copy-files", "--agent", path, status=4)
        found.must_say("destination", "the moon is full", "Wait for a new one")
        assert bench.read(bench.destination, "/srv/log") == "old"

        def copied() -> None:
            assert bench.read(bench.destination, "/srv/log") == "what the server has written"
            assert bench.read(bench.destination, "/srv/deep/er/read") == "read"
            assert bench.names(bench.destination, "/srv") - before == {"deep", "library", "log", "wd"}

        try:
            bench.moved(server, "--copy-files", then=copied)
        finally:
            bench.destination.exec(["rm", "-rf", "/srv/deep", "/srv/wd", "/srv/library"])


def test_images_damaged_on_their_way(bench: InputBench) -> None:
    with bench.server() as server, stub(bench.destination, PYTHON + DAMAGE) as path:
        found = bench.refused(server, "--agent", path, status=4)
    found.must_say("destination", "these images did not arrive as they were sent: ", "pages-", "Try again")


@pytest.mark.parametrize(
    ("role", "said"), [("destination", "cannot write "), ("origin", "No space left on device")]
)
def test_space_ends(bench: InputBench, role: str, said: str) -> None:
    """After the check, in the middle of the stream."""
    with bench.server("memory=40") as server, bench.nothing_left():
        with stopped_at(bench, "FROZEN", server) as run, filled(bench.lab.hosts[role]):
            run.go()
            found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK")
        found.must_say(role, said, "No space left on device", "/dev/shm")
        server.serves()
