"""Somebody mounts an empty file system over what a migration has on a host, while it is under way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, stopped_at
from harness.migrate import Ran
from harness.wait import eventually

from migrate.lab import Host

STATE, MEMORY = "/run/migrate", "/dev/shm"


def cover(host: Host, path: str, mode: str = "755") -> None:
    host.exec(["mkdir", "-p", path])
    host.exec(["mount", "-t", "tmpfs", "-o", f"size=1m,mode={mode}", "none", path])


def left(host: Host) -> str:
    """Images, journals, tables and cgroups of migrations on *host*."""
    words = "ls -d /dev/shm/migrate-* /run/migrate-* /run/migrate/????????????; nft list tables"
    return host.exec(["sh", "-c", f"({words}) 2>/dev/null"], check=False).stdout


@pytest.fixture(params=["origin", "destination"])
def host(bench: InputBench, request: pytest.FixtureRequest) -> Host:
    return bench.origin if request.param == "origin" else bench.destination


@pytest.fixture(autouse=True)
def addresses(bench: InputBench) -> Iterator[None]:
    yield
    there = bench.destination.exec(["pgrep", "-f", "odd.py"], check=False).stdout.split()
    if there:
        bench.destination.exec(["kill", "-9", *there], check=False)
    bench.destination.exec(["ip", "addr", "del", f"{bench.service}/24", "dev", "eth0"], check=False)
    bench.origin.exec(["ip", "addr", "replace", f"{bench.service}/24", "dev", "eth0"])
    bench.lab.hosts["gateway"].exec(["ip", "neigh", "flush", "dev", "eth0"])


def end_there(bench: InputBench, found: Ran) -> None:
    """End the process if it was moved."""
    if found.report["destination_pid"]:
        bench.end_there(found, bench.service)


def uncovered(host: Host, path: str) -> None:
    host.exec(["umount", path])


@pytest.mark.parametrize("mode", ["755", "1777"])
def test_its_journal(bench: InputBench, host: Host, mode: str) -> None:
    """It is moved, and the report names the right host. One that is seen there again, or is not."""
    with bench.server() as server:
        with stopped_at(bench, "RESTORED", server) as run:
            cover(host, STATE, mode)
            bench.origin.exec(["mkdir", "-p", f"{STATE}/{run.id}"])
            run.go()
            found = run.end()
        server.serves()
        ran_at_origin = bench.origin.exec(["ps", "ax"]).stdout.count("odd.py")
        uncovered(host, STATE)
        end_there(bench, found)
    assert (found.status, found.report["outcome"]) == (0, "MOVED"), found
    assert found.report["where"].startswith("runs on destination as PID"), found
    assert "error" not in found.report or not found.report["error"], found
    assert not ran_at_origin
    for one in (bench.origin, bench.destination):
        eventually(lambda one=one: not left(one), lambda one=one: f"{one.name}: {left(one)}")


def test_what_covers_them_before_and_is_not_roots_alone(bench: InputBench, host: Host) -> None:
    """It is told, with what to do, on either host."""
    cover(host, STATE, "1777")
    try:
        with bench.server() as server:
            found = bench.migrate(server.pid, "destination")
            server.serves()
    finally:
        uncovered(host, STATE)
    assert (found.status, found.report["outcome"]) == (3, "UNTOUCHED"), found
    found.must_say(host.name, f"{STATE} is not root's alone to write to", "unmount")


@pytest.mark.parametrize("mode", ["755", "1777"])
def test_its_journal_before_its_driver_dies(bench: InputBench, host: Host, mode: str) -> None:
    """The guardians have it open, and undo it."""
    with bench.server() as server:
        with stopped_at(bench, "RESTORED", server) as run:
            cover(host, STATE, mode)
            run.signal("KILL")
            run.killed()
        eventually(lambda: not left(bench.origin), lambda: left(bench.origin))
        server.serves()
        uncovered(host, STATE)
        for one in (bench.origin, bench.destination):
            eventually(lambda one=one: not left(one), lambda one=one: f"{one.name}: {left(one)}")


def test_a_copy_that_is_held_is_told_of(bench: InputBench) -> None:
    """Driver, agent and guardian are gone, and the journal is not to be seen."""
    with bench.server() as server:
        with stopped_at(bench, "COMMITTED", server) as run:
            words = ["pgrep", "-f", f"migrate.recovery.guardian.*{run.id}"]
            bench.origin.exec(["kill", "-9", *bench.origin.exec(words).stdout.split()])
            run.signal("KILL")
            run.killed()
        cover(bench.origin, STATE)
        try:
            asked = bench.origin.exec(["migrate", "--recover"], check=False)
            again = bench.migrate(server.pid, "destination")
        finally:
            uncovered(bench.origin, STATE)
        assert asked.returncode == 5, asked
        assert "whose journal is not seen here" in asked.stdout and f"PID {server.pid}" in asked.stdout
        assert "umount" not in asked.stderr and "findmnt" in asked.stdout
        again.must_say("origin", "whose journal is not seen here", "findmnt")
        assert bench.origin.exec(["migrate", "--recover"], check=False).returncode == 0


@pytest.mark.parametrize("state", ["DUMPED", "RESTORED"])
def test_its_images(bench: InputBench, host: Host, state: str) -> None:
    """They are the memory of a process, and stay nowhere, whether it is moved or goes on where it was."""
    with bench.server() as server:
        with stopped_at(bench, state, server) as run:
            cover(host, MEMORY)
            run.go()
            found = run.end()
        server.serves()
        uncovered(host, MEMORY)
        end_there(bench, found)
    assert found.status in (0, 4), found
    assert not [note for note in found.said if "not undone" in note], found.said
    for one in (bench.origin, bench.destination):
        eventually(lambda one=one: not left(one), lambda one=one: f"{one.name}: {left(one)}")


def test_its_images_before_its_driver_dies(bench: InputBench, host: Host) -> None:
    with bench.server() as server:
        with stopped_at(bench, "DUMPED", server) as run:
            cover(host, MEMORY)
            run.signal("KILL")
            run.killed()
        server.serves()
        eventually(lambda: not bench.names(host, STATE) - {"probe", ".arrived"}, "its journal")
        uncovered(host, MEMORY)
        for one in (bench.origin, bench.destination):
            eventually(lambda one=one: not left(one), lambda one=one: f"{one.name}: {left(one)}")
