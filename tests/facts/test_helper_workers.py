"""A worker is there as long as its user needs it: the limit is of users at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from helpers import NOBODY, Helper, line, tell, user_program
from netns import Hosts, eventually
from test_helper import GETS_AND_WAITS

import tcpcp
from tcpcp.endpoint import isolation

#: The helper with numbers of its own.
WITH = """
import sys
from tcpcp.helper import __main__, server
server.MAX_WORKERS, server.IDLE_S, server.SWEEP_S = {workers}, {idle_s}, {sweep_s}
sys.exit(__main__.main())
"""
COMES_AND_GOES = """
try:
    with helper.connect(path):
        say("in")
        input()
except helper.HelperError as error:
    say(error)
"""
FIRST = 54000


@contextlib.contextmanager
def helper_with(
    hosts: Hosts, workers: int, idle_s: float, *users: int, sweep_s: float = 60
) -> Iterator[Helper]:
    program = ("-c", WITH.format(workers=workers, idle_s=idle_s, sweep_s=sweep_s))
    named = [word for user in users for word in ("--user", str(user))]
    running = Helper(hosts.here, *named, program=program)
    try:
        yield running
    finally:
        running.close()


def assert_one_stays(running: Helper, done: subprocess.Popen[str]) -> None:
    """*done* is told to end, and the worker of its user goes; that of the other one does not."""
    tell(done)
    eventually(lambda: len(running.workers()) == 1, "it ends", 5)
    time.sleep(1)
    assert len(running.workers()) == 1


def test_a_worker_without_work_ends_after_a_while(hosts: Hosts) -> None:
    with helper_with(hosts, 64, 0.5, FIRST, NOBODY) as running:
        sock, peer = hosts.connect()
        with (
            user_program(running, GETS_AND_WAITS, [sock.fileno()]) as holds,
            user_program(running, COMES_AND_GOES, uid=FIRST) as program,
        ):
            assert (line(holds), line(program)) == ("got", "in")
            assert len(running.workers()) == 2
            assert_one_stays(running, program)  # the other holds something
        with user_program(running, COMES_AND_GOES, uid=FIRST) as again:
            assert line(again) == "in"
        eventually(lambda: len(running.workers()) == 1, "all end but that of who died with something", 5)
        assert "Traceback" not in running.log()


RELEASES = """
sock = socket.socket(fileno=numbers[0])
with helper.connect(path) as passing:
    passing.get(sock)
    passing.release(sock)
say("released")
"""


def test_a_worker_remembers_what_it_has_released(hosts: Hosts) -> None:
    """For a minute; the next one of its user would let him release as many again."""
    with helper_with(hosts, 64, 0.0, FIRST, NOBODY) as running:
        sock, _ = hosts.connect()
        with (
            user_program(running, RELEASES, [sock.fileno()]) as releases,
            user_program(running, COMES_AND_GOES, uid=FIRST) as other,
        ):
            assert (line(releases), line(other)) == ("released", "in")
            assert_one_stays(running, other)


def test_users_one_after_another(hosts: Hosts) -> None:
    """Who has nothing to do makes room at once; who has is never sent away."""
    users = range(FIRST, FIRST + 5)
    with helper_with(hosts, 2, 60, *users, NOBODY) as running:
        sock, peer = hosts.connect()
        with user_program(running, GETS_AND_WAITS, [sock.fileno()]) as holds:
            assert line(holds) == "got"
            for user in users:
                with user_program(running, COMES_AND_GOES, uid=user) as program:
                    assert line(program) == "in"
                    tell(program)
                    program.wait(5)
            with user_program(running, COMES_AND_GOES, uid=FIRST) as one:
                assert line(one) == "in"
                with user_program(running, COMES_AND_GOES, uid=FIRST + 1) as more:
                    assert "the limit" in line(more)


def test_who_comes_again_and_again(hosts: Hosts) -> None:
    """A connection is never handed to a worker that is about to end."""
    with helper_with(hosts, 64, 0.0, NOBODY) as running:
        code = "for _ in range(40):\n    with helper.connect(path): pass\nsay('done')"
        with user_program(running, code) as program:
            assert line(program) == "done"


def test_what_the_dead_have_left_is_swept(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no program of the library runs any more; what is in force stays."""
    monkeypatch.setattr(isolation, "TIMEOUT_S", 2)
    sock, peer = hosts.connect()
    with helper_with(hosts, 64, 60, NOBODY, sweep_s=0.1) as running, hosts.here.entered():
        pid = os.fork()
        if pid == 0:
            tcpcp.get(sock)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        (left,) = isolation.tables()
        time.sleep(1)
        assert isolation.tables() == [left]
        eventually(lambda: not isolation.tables(), "it is swept")
        eventually(lambda: f"deleted table inet {left}" in running.log(), "it says so")
    peer.close()
