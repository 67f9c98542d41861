"""Somebody removes the journals of a host, as by accident, or as a cleaner of old files: nothing is left of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, stopped_at
from harness.wait import eventually

from migrate.lab import Host

REMOVE = "rm -rf /run/migrate/*"


def left(host: Host) -> str:
    """Images and tables of migrations on *host*."""
    command = "ls -d /dev/shm/migrate-* /run/migrate-* /run/migrate/????????????; nft list tables"
    return host.exec(["sh", "-c", f"({command}) 2>/dev/null"], check=False).stdout


@pytest.fixture(params=["origin", "destination"])
def host(bench: InputBench, request: pytest.FixtureRequest) -> Iterator[Host]:
    yield bench.origin if request.param == "origin" else bench.destination
    bench.destination.exec(["ip", "addr", "del", f"{bench.service}/24", "dev", "eth0"], check=False)
    bench.origin.exec(["ip", "addr", "replace", f"{bench.service}/24", "dev", "eth0"])


def test_while_it_is_moved(bench: InputBench, host: Host) -> None:
    """Who needs the journal has it open, and puts it back."""
    with bench.server() as server:
        with stopped_at(bench, "DUMPED", server) as run:
            host.exec(["sh", "-c", REMOVE])
            bench.origin.exec(["mkdir", "-p", f"/run/migrate/{run.id}"])
            run.go()
            found = run.end()
        server.serves()
        bench.end_there(found, bench.service)
    assert found.status in (0, 4), found
    for one in (bench.origin, bench.destination):
        eventually(lambda one=one: not left(one), lambda one=one: f"{one.name}: {left(one)}")


def test_before_its_driver_dies(bench: InputBench, host: Host) -> None:
    """The guardians undo it all the same."""
    with bench.server() as server:
        with stopped_at(bench, "DUMPED", server) as run:
            host.exec(["sh", "-c", REMOVE])
            run.signal("KILL")
            run.killed()
        for one in (bench.origin, bench.destination):
            eventually(lambda one=one: not left(one), lambda one=one: f"{one.name}: {left(one)}")
        server.serves()


def test_what_nobody_knows_of_any_more_is_removed_by_the_next(bench: InputBench, host: Host) -> None:
    """Driver, agent and guardians were killed, and the journal is gone: a name is all that is left."""
    ids = ["0123456789ab", "0123456789ac"]
    for one in ids:
        host.exec(["sh", "-c", f"mkdir -m 700 /dev/shm/migrate-{one}; nft add table inet tcpcp-{one}"])
    path = f"/dev/shm/migrate-{ids[1]}"
    keeper = host.spawn(["flock", "--no-fork", "--shared", path, "sleep", "1000"], log="/dev/null")
    try:
        eventually(lambda: "FLOCK" in host.exec(["lslocks"]).stdout, "held")
        said = host.exec(["migrate", "--recover"], check=False).stdout
        assert f"migration {ids[0]}, whose journal is gone: its images were removed" in said
        assert ids[1] not in said
        assert left(host).split() == [path, "table", "inet", f"tcpcp-{ids[1]}"]
    finally:
        host.exec(["kill", "-KILL", str(keeper)])
    with bench.server() as server:
        eventually(
            lambda: host.exec(["flock", "--nonblock", path, "true"], check=False).returncode == 0, "let go"
        )
        bench.moved(server)
    assert left(host) == ""
