"""A switch of another package, installed beside this one, moves a server; after a kill it is undone by it, too."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import Bench, Migration
from kills_outcomes import assert_goes_on_at_origin, assert_moved

OURS = Path(sys.executable).parent
EXAMPLE = Path(__file__).parents[2] / "examples/switch_told"
PIP = ("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index")
#: It writes down what it is told.
PROGRAM = '#!/bin/sh\necho "$@" >>/tmp/told\n'


@pytest.fixture(scope="module")
def target() -> Iterator[Path]:
    """Where the package is, and programs that find it, where the lab's hosts see them."""
    where = Path(tempfile.mkdtemp(prefix="example-", dir=OURS.parent))
    shutil.copytree(EXAMPLE, where / "source")
    words = [sys.executable, *PIP, "--target", str(where / "target"), str(where / "source")]
    subprocess.run(words, check=True, timeout=100)
    for name in ("migrate", "migrate-agent"):
        (where / name).write_text(f'#!/bin/sh\nPYTHONPATH={where}/target exec {OURS}/{name} "$@"\n')
        (where / name).chmod(0o755)
    yield where
    shutil.rmtree(where)


@pytest.fixture
def bench(loaded: Bench) -> Iterator[Bench]:
    bench = loaded.ready()
    put = "mkdir -p /etc/migrate; cat >/etc/migrate/switched; chmod 755 /etc/migrate/switched"
    for host in (bench.origin, bench.destination):
        host.exec(["sh", "-c", put], input=PROGRAM)
    yield bench
    for host in (bench.origin, bench.destination):
        host.exec(["rm", "-rf", "/etc/migrate", "/tmp/told"])


def told(bench: Bench) -> list[list[str]]:
    """The first word of each time on either host: the origin's, the destination's."""
    hosts = (bench.origin, bench.destination)
    return [
        [line.split()[0] for line in host.exec(["sh", "-c", "cat /tmp/told || :"]).stdout.splitlines()]
        for host in hosts
    ]


def options(target: Path) -> tuple[str, ...]:
    return "--switch", "told", "--agent", str(target / "migrate-agent")


def test_a_move(bench: Bench, target: Path) -> None:
    status, report = bench.migrate(
        *options(target), str(bench.pid), "destination", program=str(target / "migrate")
    )
    assert (status, report["outcome"]) == (0, "MOVED"), report
    assert told(bench) == [["away"], ["here"]]
    assert_moved(bench)


def test_an_undo_by_the_guardians(bench: Bench, target: Path) -> None:
    migration = Migration(bench, "SWITCHED", *options(target), program=str(target / "migrate"))
    migration.kill("driver")
    migration.killed()
    assert_goes_on_at_origin(bench, within_s=10)
    assert told(bench) == [["away", "here"], ["here", "away"]]


def test_where_the_destination_has_not_got_it(bench: Bench, target: Path) -> None:
    """Nothing is touched, and what is missing is named."""
    status, report = bench.migrate(
        "--switch", "told", str(bench.pid), "destination", program=str(target / "migrate")
    )
    assert (status, report["outcome"]) == (3, "UNTOUCHED"), report
    assert "nothing that is installed here is called told" in report["error"]["message"]
    assert report["error"]["role"] == "destination"
    assert "both hosts" in report["error"]["hint"]
    assert_goes_on_at_origin(bench)
