"""A frozen process waits for nothing longer than it may, and its way back waits for nobody."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import pytest
from harness.wait import eventually
from kills import PORT, Bench, Migration
from kills_outcomes import assert_goes_on_at_origin

from migrate import limits
from migrate.lab import Host

LOCK = "/root/lock"
MEMORY = """
import os, signal
size = 60 << 20
memory = bytearray(os.urandom(size))
def change(*_):
    memory[:] = os.urandom(size)
    open("/root/changed", "w").close()
signal.signal(signal.SIGUSR1, change)
open("/root/changed", "w").close()
while True:
    signal.pause()
"""
LOCKED = f"""
import fcntl, time
file = open("{LOCK}", "r+")
fcntl.flock(file, fcntl.LOCK_EX)
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


def is_state(host: Host, pid: int, letters: str) -> bool:
    return host.exec(["ps", "-o", "stat=", "-p", str(pid)], check=False).stdout[:1] in letters.split()


# --- no longer than --max-gap ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["ISOLATED", "RESTORED"])
def test_frozen_no_longer_than_max_gap(bench: Bench, state: str) -> None:
    """Whatever it waits for: here for somebody who lets it go on, and the report does not say that a step that was
    taken before had not been finished."""
    migration = Migration(bench, state, "--max-gap", "2")
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert report["error"]["kind"] == "TookTooLong"
    said = "2 s after new connections were first held it was still held at"
    assert report["error"]["message"] == f"{said} {state}"
    assert "--max-gap" in report["error"]["hint"]
    # Held before it is frozen: a busy machine takes its time in between.
    assert 1000 < report["frozen_ms"] < 6000
    assert_goes_on_at_origin(bench)


def test_a_terminal_does_not_stop_it_in_the_gap(bench: Bench) -> None:
    migration = Migration(bench, "ISOLATED")
    for signal in ("TSTP", "TTIN", "TTOU"):
        migration.kill("driver", signal=signal)
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (0, "MOVED")


@pytest.mark.parametrize("state", ["ISOLATED", "SWITCHED"])
def test_a_driver_that_is_stopped_in_the_gap(bench: Bench, state: str) -> None:
    """It is continued when the gap has to be over, and rolls back."""
    migration = Migration(bench, state, "--max-gap", "3")
    migration.kill("driver", signal="STOP")
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert_goes_on_at_origin(bench)


@contextlib.contextmanager
def lock_held_there(bench: Bench, *options: str) -> Iterator[Migration]:
    """The migration of a process that holds a lock, which somebody on the destination took just after the check."""
    for host in (bench.origin, bench.destination):
        host.exec(["sh", "-c", f"echo lock > {LOCK}"])
    here, there = hold_lock(bench.origin), 0
    try:
        with bench.other(here):
            migration = Migration(bench, "CHECKED", *options)
            there = hold_lock(bench.destination)
            migration.go()
            yield migration
            eventually(lambda: is_state(bench.origin, here, "R S"), "it goes on")
    finally:
        if there:
            bench.destination.exec(["kill", "-9", str(there)], check=False)
        for host in (bench.origin, bench.destination):
            host.exec(["rm", LOCK])


def hold_lock(host: Host) -> int:
    pid = host.spawn([sys.executable, "-c", LOCKED])
    eventually(lambda: LOCK in host.exec(["lslocks", "-no", "PATH"]).stdout, "the lock is held")
    return pid


def test_a_lock_that_is_held_there(bench: Bench) -> None:
    with lock_held_there(bench, "--max-gap", "10", "--timeout", "300") as migration:
        status, report = migration.end()
        assert (status, report["outcome"]) == (4, "ROLLED_BACK")
        assert "--max-gap" in report["error"]["hint"]
        assert "lock" in report["error"]["hint"]
        assert report["error"]["role"] == "destination"
    assert_goes_on_at_origin(bench)


def test_criu_that_dies_while_it_restores_is_noticed_at_once(bench: Bench) -> None:
    """Its helpers keep its socket open, and one of them waits for a lock."""
    with lock_held_there(bench, "--max-gap", "30") as migration:
        script = "pgrep -x criu | wc -l"
        eventually(
            lambda: int(bench.destination.exec(["sh", "-c", script]).stdout) > 1, "CRIU builds the tree"
        )
        time.sleep(0.3)
        bench.destination.exec(["sh", "-c", "kill -9 $(pgrep -ox criu)"])
        began = time.monotonic()
        status, report = migration.end()
        assert time.monotonic() - began < 15  # of 30 that it may take
        assert status == 4
        assert "killed by SIGKILL" in report["error"]["message"]
    assert_goes_on_at_origin(bench)


def test_a_server_that_does_not_accept(bench: Bench) -> None:
    """New connections are held for no longer than the process may be frozen."""
    where = f"('{bench.lab.service.ipv4}', {PORT})"
    script = f"import socket, time; c = socket.create_connection({where}); time.sleep(60)"
    bench.origin.exec(["kill", "-STOP", str(bench.pid)])
    client = bench.peer.spawn([sys.executable, "-c", script])
    waiting = ["ss", "-Hltn", f"sport = :{PORT}"]
    eventually(lambda: " 1 " in bench.origin.exec(waiting).stdout, "a connection waits")
    status, report = bench.migrate("--max-gap", "2", str(bench.pid), "destination")
    bench.origin.exec(["kill", "-CONT", str(bench.pid)])
    bench.peer.exec(["kill", "-9", str(client)])
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert "does not accept" in report["error"]["message"]
    assert "--max-gap" in report["error"]["hint"]
    assert report["phases_ms"]["origin"]["freeze"] < 6000
    assert_goes_on_at_origin(bench)


def test_check_says_how_long(bench: Bench) -> None:
    status, report = bench.migrate("--check", "--max-gap", "3", str(bench.pid), "destination")
    assert status == 0
    assert "at most 3 s (--max-gap)" in " ".join(report["notes"])
    bench.assert_alone("origin")


# --- what must not be missing at COMMIT ------------------------------------------------------------------


@pytest.mark.parametrize("state", ["ISOLATED", "SWITCHED"])
def test_filter_that_was_removed(bench: Bench, state: str) -> None:
    """By the restart of a firewall, say. What came meanwhile may have been answered by the frozen process."""
    migration = Migration(bench, state)
    bench.origin.exec(["nft", f"flush set inet tcpcp-{migration.id} armed"])
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"], report["error"]["kind"]) == (4, "ROLLED_BACK", "FilterLost")
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize("where", ["origin", "destination"])
def test_guardian_that_was_killed(bench: Bench, where: str) -> None:
    """Without one nothing is given away."""
    state = "SWITCHED" if where == "origin" else "RESTORED"
    migration = Migration(bench, state)
    migration.kill(f"guardian {where}")
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert "guardian" in report["error"]["message"] and "SIGKILL" in report["error"]["message"]
    assert report["error"]["role"] == where
    assert_goes_on_at_origin(bench)


# --- a slow link -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def much_to_send(bench: Bench, *options: str) -> Iterator[tuple[Migration, int]]:
    """A migration that has 60 MB to send while its process is frozen, over a link of 1 MB/s."""
    changed = ["rm", "/root/changed"]
    pid = bench.origin.spawn([sys.executable, "-c", MEMORY])
    rule = "tcp dport 22 limit rate over 1000 kbytes/second burst 400 kbytes drop"
    with bench.other(pid):
        eventually(lambda: bench.origin.exec(changed, check=False).returncode == 0, "it has its memory")
        migration = Migration(bench, "CHECKED", *options)
        bench.origin.exec(["kill", "-USR1", str(pid)])
        eventually(lambda: bench.origin.exec(changed, check=False).returncode == 0, "it has changed it")
        script = f"table inet slow {{\nchain o {{ type filter hook output priority -400; {rule}\n}}\n}}"
        bench.origin.exec(["nft", script])
        try:
            migration.go()
            yield migration, pid
        finally:
            bench.origin.exec(["nft", "delete table inet slow"])


@pytest.mark.parametrize("signal", ["INT", "TERM"])
def test_interrupted_while_images_are_sent(bench: Bench, signal: str) -> None:
    with much_to_send(bench, "--max-gap", "60") as (migration, pid):
        eventually(lambda: is_state(bench.origin, pid, "t T"), "it is frozen")
        time.sleep(3)
        bench.origin.exec(["kill", f"-{signal}", str(migration.driver)])
        began = time.monotonic()
        eventually(lambda: is_state(bench.origin, pid, "R S"), "it goes on", 3)
        status, report = migration.end()
        assert time.monotonic() - began < 15
        assert (status, report["outcome"]) == (4, "ROLLED_BACK")
        assert report["error"]["kind"] == "Interrupted"
    assert_goes_on_at_origin(bench)


def test_images_that_take_too_long(bench: Bench) -> None:
    with much_to_send(bench, "--max-gap", "4") as (migration, pid):
        status, report = migration.end()
        assert (status, report["outcome"]) == (4, "ROLLED_BACK")
        assert (report["error"]["kind"], report["error"]["phase"]) == ("TookTooLong", "stream")
        assert 3900 < report["frozen_ms"] < 8000
        assert is_state(bench.origin, pid, "R S")
    assert_goes_on_at_origin(bench)


# --- the start of the agent ------------------------------------------------------------------------------


def test_an_agent_that_is_long_in_starting(bench: Bench) -> None:
    """On a slow host it is not called dead by the limit for a link that has fallen silent."""
    slow = bench.destination.root / "root/slow-agent"
    slow.write_text(f'#!/bin/sh\nsleep {limits.SILENCE_S + 2}\nexec migrate-agent "$@"\n')
    slow.chmod(0o755)
    status, report = bench.migrate("--check", "--agent", "/root/slow-agent", str(bench.pid), "destination")
    assert (status, report["error"]) == (0, None)
    bench.assert_alone("origin")
