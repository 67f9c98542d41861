"""Moves by the ssh program: over a jump host, with it killed, with a cut; who asks later asks in the same way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.checkered import checkered
from kills import Bench, Migration
from kills_outcomes import assert_goes_on_at_origin, assert_moved, untouched_or_rolled_back

BY_SSH = ("--transport", "ssh")
#: It writes down each time that it is asked to start an agent, which is not when it is asked for its configuration.
WRAPPER = """#!/bin/sh
case "$*" in *" -G "*) ;; *) echo "$*" >>/tmp/ssh-program ;; esac
exec /usr/bin/ssh "$@"
"""
#: The destination by another name, which only leads there over the gateway.
FAR = """
Host far
    HostName 10.77.1.2
    HostKeyAlias destination
    ProxyJump gateway
"""
PUT = "mkdir -p $(dirname $1); cat >$1; chmod 755 $1"


@pytest.fixture
def bench(loaded: Bench) -> Iterator[Bench]:
    bench = loaded.ready()
    for path, text in (("/usr/local/bin/ssh", WRAPPER), ("/root/.ssh/config", FAR)):
        bench.origin.exec(["sh", "-c", PUT, "sh", path], input=text)
    bench.origin.exec(["chmod", "600", "/root/.ssh/config"])
    bench.origin.exec(["rm", "-f", "/tmp/ssh-program"])
    yield bench
    bench.origin.exec(["rm", "-f", "/usr/local/bin/ssh", "/root/.ssh/config", "/tmp/ssh-program"])


def asked(bench: Bench) -> int:
    """How often the ssh program was to start an agent."""
    return len(bench.origin.exec(["sh", "-c", "cat /tmp/ssh-program || true"]).stdout.splitlines())


def kill_ssh(bench: Bench) -> None:
    bench.origin.exec(["pkill", "-9", "-x", "ssh"])


def test_a_move(bench: Bench) -> None:
    status, report = bench.migrate(*BY_SSH, str(bench.pid), "destination")
    assert (status, report["outcome"]) == (0, "MOVED"), report
    assert asked(bench) == 1
    assert_moved(bench)


def test_a_move_over_a_jump_host(bench: Bench) -> None:
    status, report = bench.migrate("--check", *BY_SSH, str(bench.pid), "far")
    assert status == 0, report
    status, report = bench.migrate(*BY_SSH, str(bench.pid), "far")
    assert (status, report["outcome"]) == (0, "MOVED"), report
    assert_moved(bench)


@pytest.mark.parametrize("state", checkered(["CHECKED", "ISOLATED", "SWITCHED"]))
def test_the_program_is_killed_before_commit(bench: Bench, state: str) -> None:
    migration = Migration(bench, state, *BY_SSH)
    kill_ssh(bench)
    status, report = migration.end()
    assert (status, report["outcome"]) == untouched_or_rolled_back(state)
    assert "the ssh program was killed" in report["error"]["message"]
    assert_goes_on_at_origin(bench)
    assert asked(bench) > 1, "the destination was asked whether it has cleaned up"


@pytest.mark.parametrize("state", checkered(["ISOLATED", "SWITCHED"]))
def test_the_link_is_cut_before_commit(bench: Bench, state: str) -> None:
    migration = Migration(bench, state, *BY_SSH)
    with bench.cut():
        status, report = migration.end()
        assert (status, report["outcome"]) == (4, "ROLLED_BACK")
        assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("state", checkered(["SWITCHED", "ISOLATED"]))
def test_the_driver_is_killed_before_commit(bench: Bench, state: str) -> None:
    """Nothing is left of it, its ssh program neither; its guardian asks the destination by another one."""
    migration = Migration(bench, state, *BY_SSH)
    migration.kill("driver")
    migration.killed()
    assert_goes_on_at_origin(bench, within_s=10)


def test_the_program_is_killed_after_commit(bench: Bench) -> None:
    """In doubt the driver asks, in the same way."""
    migration = Migration(bench, "SWITCHED", *BY_SSH)
    migration.kill("criu destination", signal="STOP")
    migration.go()
    migration.wait_for_journal(bench.destination, "COMMITTED")
    kill_ssh(bench)
    migration.kill("criu destination", signal="CONT")
    status, report = migration.end()
    assert (status, report["outcome"]) == (0, "MOVED")
    assert f"destination was asked: it runs there as PID {bench.pid}" in report["notes"]
    assert asked(bench) > 1
    assert_moved(bench)


def test_recover_asks_in_the_way_that_was_gone(bench: Bench) -> None:
    """The journal says which it was; the command has no word for it."""
    migration = Migration(bench, "SWITCHED", *BY_SSH)
    migration.kill("agent", signal="STOP")
    with bench.cut():
        migration.go()
        assert migration.end()[0] == 5
    before = asked(bench)
    bench.destination.exec(["kill", "-CONT", str(migration.agent)])
    status, report = bench.migrate("--recover")
    assert status == 0, report
    assert "destination was asked" in report["notes"][0]
    assert asked(bench) > before
    if "does not run there" in report["notes"][0]:
        assert_goes_on_at_origin(bench)
    else:
        assert_moved(bench)
