"""A destination on which what the process writes cannot be written: refused, and the remedy that is told helps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, stopped_at

DATA = "/srv/closed/data"
CLOSED = {
    "read-only": "mount -o remount,ro /srv/closed",
    "immutable": f"chattr +i {DATA}",
}


@pytest.fixture
def bench(bench: InputBench) -> Iterator[InputBench]:
    """Both hosts have the file, on a file system of its own."""
    hosts = (bench.origin, bench.destination)
    for host in hosts:
        host.exec(["sh", "-c", "mkdir -p /srv/closed && mount -t tmpfs none /srv/closed"])
        bench.write(host, DATA, "same")
    yield bench
    for host in hosts:
        host.exec(["umount", "/srv/closed"])
        host.exec(["rmdir", "/srv/closed"])


def close(bench: InputBench, how: str) -> None:
    bench.destination.exec(["sh", "-c", CLOSED[how]])


@pytest.mark.parametrize("how", CLOSED)
@pytest.mark.parametrize("options", [(), ("--copy-files",)])
def test_refused_until_the_remedy_was_tried(bench: InputBench, how: str, options: tuple[str, ...]) -> None:
    if options:
        bench.write(bench.destination, DATA, "other")
    close(bench, how)
    with bench.server(f"write={DATA}") as server:
        found = bench.refused(server, *options)
        assert found.codes == {(how, "destination")}
        (said,) = found.report["reasons"]
        bench.destination.exec(["sh", "-c", said["remedy"].partition(": ")[2]])
        bench.moved(server, *options)


@pytest.mark.parametrize("how", CLOSED)
def test_closed_between_check_and_freeze(bench: InputBench, how: str) -> None:
    with bench.server(f"write={DATA}") as server:
        with stopped_at(bench, "CHECKED", server) as run:
            close(bench, how)
            run.go()
            found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK")
        found.must_say("origin", DATA, "not so when it was checked")
        server.serves()
    bench.destination.exec(["chattr", "-i", DATA], check=False)
