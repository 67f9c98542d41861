"""A worker is there as long as its user needs it: the limit is of users at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from helpers import NOBODY, Helper, line, tell, user_program
from netns import Hosts, eventually
from test_helper import GETS_AND_WAITS

#: The helper with numbers of its own.
WITH = """
import sys
from tcpcp.helper import __main__, server
server.MAX_WORKERS, server.IDLE_S = {workers}, {idle_s}
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
def helper_with(hosts: Hosts, workers: int, idle_s: float, *users: int) -> Iterator[Helper]:
    program = ("-c", WITH.format(workers=workers, idle_s=idle_s))
    named = [word for user in users for word in ("--user", str(user))]
    running = Helper(hosts.here, *named, program=program)
    try:
        yield running
    finally:
        running.close()


def test_a_worker_without_work_ends_after_a_while(hosts: Hosts) -> None:
    with helper_with(hosts, 64, 0.5, FIRST, NOBODY) as running:
        sock, peer = hosts.connect()
        with (
            user_program(running, GETS_AND_WAITS, [sock.fileno()]) as holds,
            user_program(running, COMES_AND_GOES, uid=FIRST) as program,
        ):
            assert (line(holds), line(program)) == ("got", "in")
            assert len(running.workers()) == 2
            tell(program)
            eventually(lambda: len(running.workers()) == 1, "it ends", 5)
            time.sleep(1)
            assert len(running.workers()) == 1  # the other holds something
        with user_program(running, COMES_AND_GOES, uid=FIRST) as again:
            assert line(again) == "in"
        eventually(lambda: not running.workers(), "all end", 5)
        assert "Traceback" not in running.log()


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
