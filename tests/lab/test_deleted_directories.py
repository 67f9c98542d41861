"""Directories that CRIU makes on the destination on the way to a deleted one stay there only with the process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, Server, stopped_at
from harness.wait import eventually

#: Works in a directory that is deleted, with those that it was in.
BEGINS = """
import os, shutil, time
os.makedirs("/srv/gone/deep/here"); os.chdir("/srv/gone/deep/here"); shutil.rmtree("/srv/gone")
open("/run/begun", "w").close()
while True: time.sleep(1000)
"""


@pytest.fixture
def program(bench: InputBench) -> Iterator[Server]:
    with bench.server() as server, bench.program(bench.origin, sys.executable, "-c", BEGINS) as pid:
        eventually(lambda: "begun" in bench.names(bench.origin, "/run"), "begun")
        yield Server(pid, "", 0, server.connection, "")
    bench.origin.exec(["rm", "/run/begun"])
    bench.destination.exec(["rm", "-rf", "/srv/gone"])


@pytest.mark.parametrize("by", ["driver", "guardian"])
def test_after_a_rollback(bench: InputBench, program: Server, by: str) -> None:
    with bench.nothing_left():
        with stopped_at(bench, "RESTORED", program) as run:
            if by == "driver":
                run.signal("INT")
                assert run.end().report["outcome"] == "ROLLED_BACK"
            else:
                run.signal("KILL")
                run.killed()
        eventually(lambda: "gone" not in bench.names(bench.destination, "/srv"), "as before")


def test_after_a_move(bench: InputBench, program: Server) -> None:
    """The deleted one is deleted there; those that it was in may be of use to the process."""
    found = bench.migrate(program.pid, "destination")
    bench.end_there(found)
    assert found.report["outcome"] == "MOVED", found
    assert bench.names(bench.destination, "/srv/gone/deep") == set()


def test_what_somebody_has_put_there_stays(bench: InputBench, program: Server) -> None:
    with stopped_at(bench, "RESTORED", program) as run:
        bench.destination.exec(["sh", "-c", "mkdir -p /srv/gone/deep && echo word > /srv/gone/deep/file"])
        run.signal("INT")
        assert run.end().report["outcome"] == "ROLLED_BACK"
    assert bench.names(bench.destination, "/srv/gone/deep") == {"file"}


#: Works in a directory that is deleted, and uses another one of that name.
MADE_AGAIN = """
import os, time
os.makedirs("/srv/gone"); os.chdir("/srv/gone"); os.rmdir("/srv/gone")
os.mkdir("/srv/gone"); log = open("/srv/gone/log", "w")
open("/run/begun", "w").close()
while True: time.sleep(1000)
"""


def test_one_that_was_made_again_and_would_be_copied(bench: InputBench) -> None:
    """What has its name there comes from us: it is refused before anything is frozen."""
    with bench.nothing_left():
        with bench.program(bench.origin, sys.executable, "-c", MADE_AGAIN) as pid:
            eventually(lambda: "begun" in bench.names(bench.origin, "/run"), "begun")
            found = bench.migrate(pid, "destination", "--copy-files")
        bench.origin.exec(["rm", "-r", "/run/begun", "/srv/gone"])
    assert found.codes == {("deleted-name-taken", "destination")}
    found.must_say("destination", "--copy-files would make", "leave the deleted directory")
