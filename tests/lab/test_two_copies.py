"""SIGCONT again and again, from anybody, while a process is moved: one copy beats, and only one, whoever is killed.

Once where the hosts have cgroups to freeze it in, once where a keeper must do. A beat is a symbolic link that the
process makes, so nothing of it is open while it is frozen.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.checkered import checkered
from harness.left import View
from harness.wait import eventually
from kills import Bench, Migration

from migrate.lab import Host

BEATS = """
import os, sys, threading, time
def beat(name):
    number = 0
    while True:
        number += 1
        try: os.symlink('x', f'/tmp/beats/{os.getpid()}-{name}-{number}')
        except OSError: pass
        time.sleep(0.01)
os.umask(0); child = os.fork()
threading.Thread(target=beat, args=('b',), daemon=True).start()
beat('a')
"""
HOLDS = ["freezer", "keeper"]
BEFORE = ["FROZEN", "DUMPED", "ISOLATED", "RESTORED", "SWITCHED"]
VICTIMS = [("driver",), ("driver", "guardian origin"), ("driver", "guardian origin", "criu origin")]
WATCH_S = 0.5


@pytest.fixture
def bench(loaded: Bench) -> Iterator[Bench]:
    """A process with a child, two threads each, is what is migrated: ``bench.pid``."""
    bench = loaded.ready()
    for host in (bench.origin, bench.destination):
        host.exec(["mkdir", "-p", "/tmp/beats"])
    pid = bench.origin.spawn([sys.executable, "-c", BEATS])
    with bench.other(pid):
        eventually(lambda: beats(bench.origin), "it beats")
        yield bench
        for host in (bench.origin, bench.destination):
            host.exec(["pkill", "-9", "-f", "/tmp/beats"], check=False)
    bench.assert_alone("origin", within_s=15)


def beats(host: Host, watch_s: float = WATCH_S) -> int:
    """How many there are within *watch_s*."""
    words = f"rm -rf /tmp/beats/*; sleep {watch_s}; ls /tmp/beats | wc -l"
    return int(host.exec(["sh", "-c", words]).stdout)


def only(host: Host, other: Host) -> None:
    """It beats on *host*, and not on *other*."""
    eventually(lambda: beats(host), f"it beats on {host.name}")
    assert beats(other) == 0


@pytest.fixture(params=HOLDS)
def hold(request: pytest.FixtureRequest, bench: Bench) -> Iterator[str]:
    """What keeps the origin's copy still: where cgroups cannot be written, a keeper does."""
    remount = "mount -o remount,bind,%s /sys/fs/cgroup"
    if request.param == "keeper":
        bench.origin.exec(["sh", "-c", remount % "ro"])
    yield request.param
    bench.origin.exec(["sh", "-c", remount % "rw"])


@contextlib.contextmanager
def sigcont(bench: Bench) -> Iterator[None]:
    """Somebody sends SIGCONT to every task, as fast as a shell can."""
    loop = f"while kill -CONT {bench.pid}; do pkill -CONT -P {bench.pid}; sleep 0.002; done"
    with bench.origin.popen(["sh", "-c", loop]) as sender:
        try:
            yield
        finally:  # else it is waited for while the process lives, and what failed is not seen
            sender.terminate()


def keeper(bench: Bench) -> int:
    found = bench.origin.exec(["pgrep", "-f", "migrate.processes.keeping"], check=False).stdout.split()
    return int(found[0]) if found else 0


def kill_keeper(bench: Bench) -> None:
    bench.origin.exec(["kill", "-9", str(keeper(bench))])


@contextlib.contextmanager
def unreachable(bench: Bench) -> Iterator[None]:
    """The destination refuses to be asked."""
    chain = "chain output { type filter hook output priority -500; tcp dport 22 reject with tcp reset; }"
    bench.origin.exec(["nft", f"table inet cut {{\n{chain}\n}}"])
    try:
        yield
    finally:
        bench.origin.exec(["nft", "delete table inet cut"])


def decide(bench: Bench, migration: Migration, word: str) -> dict[str, Any]:
    """--recover, which cannot ask, then what a person decides; the report of --recover."""
    with unreachable(bench):
        eventually(lambda: bench.migrate("--recover")[1]["outcome"] == "IN_DOUBT", "in doubt")
        _, report = bench.migrate("--recover")
        status, _ = bench.migrate("--recover", word, migration.id, "--force")
    assert status == {"--release": 0, "--resume": 4}[word]
    bench.origin.exec(["test", "!", "-e", f"/sys/fs/cgroup/migrate-{migration.id}"])
    assert not keeper(bench)
    return dict(report)


def processes_of(bench: Bench) -> list[str]:
    return [words for _, words in View(bench.origin).processes.values() if "/tmp/beats" in words]


@pytest.mark.parametrize(("hold", "state"), checkered(HOLDS, BEFORE), indirect=["hold"])
def test_sigcont_before_commit(bench: Bench, hold: str, state: str) -> None:
    """Rolled back by the guardian: it had not run in between, and does again, where it was."""
    migration = Migration(bench, state)
    with sigcont(bench):
        if state != "FROZEN":
            assert beats(bench.origin) == 0
        migration.kill("driver")
        migration.killed()
        only(bench.origin, bench.destination)
    eventually(lambda: not bench.traces(bench.origin), "undone", 5)
    bench.origin.exec(["test", "!", "-e", f"/sys/fs/cgroup/migrate-{migration.id}"])
    assert bench.origin.exec(["cat", f"/proc/{bench.pid}/cgroup"]).stdout.splitlines()[-1] == "0::/"


@pytest.mark.parametrize("hold", HOLDS, indirect=True)
def test_a_child_that_is_stopped_before_commit(bench: Bench, hold: str) -> None:
    """By somebody else than the driver: it is stopped where it was, the others run, and it waits for SIGCONT."""
    migration = Migration(bench, "DUMPED")
    child = bench.origin.exec(["pgrep", "-P", str(bench.pid)]).stdout.strip()
    bench.origin.exec(["kill", "-STOP", child])
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert f"process {child} was sent SIGSTOP" in report["error"]["message"]
    only(bench.origin, bench.destination)
    state = ["ps", "-o", "s=", "-p", child]
    assert bench.origin.exec(state).stdout == "T\n"
    bench.origin.exec(["kill", "-CONT", child])
    eventually(lambda: bench.origin.exec(state).stdout != "T\n", "it goes on")


@pytest.mark.parametrize(("hold", "state"), checkered(HOLDS, ["DUMPED", "SWITCHED"]), indirect=["hold"])
def test_sigcont_and_moved(bench: Bench, hold: str, state: str) -> None:
    migration = Migration(bench, state)
    with sigcont(bench):
        migration.go()
        assert migration.end()[0] == 0
    only(bench.destination, bench.origin)
    assert processes_of(bench) == [] and not keeper(bench)
    bench.origin.exec(["test", "!", "-e", f"/sys/fs/cgroup/migrate-{migration.id}"])


@pytest.mark.parametrize(
    ("hold", "victims", "word"), checkered(HOLDS, VICTIMS, ["--release", "--resume"]), indirect=["hold"]
)
def test_sigcont_in_doubt(bench: Bench, hold: str, victims: tuple[str, ...], word: str) -> None:
    """The driver dies just after it has given the process away, and others with it."""
    migration = Migration(bench, "COMMITTED")
    with sigcont(bench):
        migration.kill(*victims)
        migration.killed()
        only(bench.destination, bench.origin)
        assert beats(bench.origin) == 0
        if word == "--resume":
            bench.destination.exec(["pkill", "-9", "-f", "/tmp/beats"])
        report = decide(bench, migration, word)
    assert {"freezer": "A frozen cgroup", "keeper": "migrate.processes.keeping"}[hold] in report[
        "instructions"
    ][0]
    expected = (bench.destination, bench.origin) if word == "--release" else (bench.origin, bench.destination)
    only(*expected)


@pytest.mark.parametrize("hold", checkered(HOLDS), indirect=True)
def test_link_lost(bench: Bench, hold: str) -> None:
    """The driver itself is in doubt, and ends."""
    migration = Migration(bench, "SWITCHED")
    with sigcont(bench):
        with bench.cut(("input",)):
            migration.go()
            status, report = migration.end()
            assert (status, report["outcome"]) == (5, "IN_DOUBT")
            only(bench.destination, bench.origin)
        decide(bench, migration, "--release")
    only(bench.destination, bench.origin)


def thaw(bench: Bench, migration: Migration) -> None:
    freeze = f"/sys/fs/cgroup/migrate-{migration.id}/cgroup.freeze"
    bench.origin.exec(["sh", "-c", f"echo 0 > {freeze}"])


@pytest.mark.parametrize(
    ("hold", "take_away"),
    [("freezer", thaw), ("keeper", lambda bench, migration: kill_keeper(bench))],
    indirect=["hold"],
)
def test_what_holds_it_is_taken_away(
    bench: Bench, hold: str, take_away: Callable[[Bench, Migration], None]
) -> None:
    """Before COMMIT: rolled back. In doubt: a SIGSTOP holds it, and --recover says so, or freezes it again."""
    migration = Migration(bench, "SWITCHED")
    take_away(bench, migration)
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert "somebody else let it go" in report["error"]["message"]
    only(bench.origin, bench.destination)
    migration = Migration(bench, "COMMITTED")
    migration.kill("driver", "guardian origin")
    migration.killed()
    take_away(bench, migration)
    time.sleep(0.2)
    only(bench.destination, bench.origin)
    report = decide(bench, migration, "--release")
    weak = "only a SIGSTOP" in report["instructions"][0]
    assert weak == (hold == "keeper")
    only(bench.destination, bench.origin)
