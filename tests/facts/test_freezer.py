"""Frozen cgroups and tracing: what a task that CRIU lets go does then, and what SIGCONT and SIGKILL do to it.

The hold on a given-away copy rests on these (:mod:`migrate.recovery.hold`).
"""

# ruff: noqa: F401, F811  (fixtures of another file)

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import eventually
from test_criu import Ticker, directory, kill, ticker

from migrate import inventory, place
from migrate.checks import obstacles
from migrate.criu.worker import Worker
from migrate.journal import journal
from migrate.processes import freezer, identity
from migrate.processes.freezer import Freezer, Unavailable
from migrate.processes.identity import Identity
from migrate.recovery import records, undo
from migrate.recovery.entries import Criu, Keeper, Stop
from migrate.recovery.hold import Hold
from tcpcp.criu import tree

FORKS = "import os, time\nfor _ in range(3): os.fork()\nopen('/dev/null'); time.sleep(1000)"
#: A child that has ended and is not reaped, and one that goes on.
ZOMBIE = "import os, time\nif os.fork() == 0: os._exit(0)\nos.fork(); time.sleep(1000)"
FORKS_ON = """
import os, time
while True:
    if os.fork() == 0:
        time.sleep(0.02)
        os._exit(0)
    time.sleep(0.002)
    while os.waitpid(-1, os.WNOHANG)[0]:
        pass
"""
NAME = "migrate-0123456789ab"


@pytest.fixture
def home() -> Iterator[Path]:
    """A cgroup of this test's own."""
    try:
        root = freezer.mount_point().place
    except Unavailable as error:
        pytest.skip(str(error))
    path = root / f"facts-{os.getpid()}"
    path.mkdir()
    yield path
    for below in sorted(path.rglob("*"), reverse=True):
        if below.is_dir():
            freezer.release([below])
    freezer.release([path])


def put(pid: int, cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(pid))


@contextlib.contextmanager
def program(code: str, count: int, home: Path) -> Iterator[int]:
    """The root of a tree of so many processes that run *code*, all in *home*."""
    script = 'echo $$ > "$1" && exec "$2" -c "$3"'
    words = ["sh", "-c", script, "sh", str(home / "cgroup.procs"), sys.executable, code]
    process = subprocess.Popen(words, start_new_session=True)
    eventually(lambda: where(process.pid) == home, "it is there")
    eventually(lambda: len(tree.tasks(process.pid)) >= count, "the tree is there")
    yield process.pid
    (home / "cgroup.kill").write_text("1")
    process.wait()


def made(paths: list[Path]) -> Freezer:
    return Freezer(NAME, paths.append)


def where(pid: int) -> Path:
    return freezer.cgroup_of(freezer.mount_point(), pid)


# --- what the kernel does -----------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True])
def test_a_task_that_criu_lets_go_in_a_frozen_cgroup_stays(ticker: Ticker, home: Path, killed: bool) -> None:
    """Source: kernel/signal.c get_signal(): do_freezer_trap() comes before the return to the program."""
    put(ticker.pid, home)
    worker = Worker()
    stages = ticker.dumped_at(worker, "post-dump")
    (home / "cgroup.freeze").write_text("1")
    assert freezer.problem([home], [identity.identity(ticker.pid)]) == ""  # a traced task counts as frozen
    os.kill(ticker.pid, signal.SIGCONT)
    if killed:
        kill(worker)
    worker.close()
    stages.close()
    for number in (signal.SIGCONT, signal.SIGSTOP, signal.SIGCONT):
        os.kill(ticker.pid, number)
        ticker.rests()
    (home / "cgroup.freeze").write_text("0")
    ticker.runs()


def test_one_that_is_frozen_is_refused(ticker: Ticker, home: Path) -> None:
    """CRIU would hang, and with its death the process would go."""
    put(ticker.pid, home)
    assert inventory.process(ticker.pid).obstacles == []
    (home / "cgroup.freeze").write_text("1")
    eventually(lambda: freezer.problem([home], []) == "", "it is frozen")
    [obstacle] = inventory.process(ticker.pid).obstacles
    assert (obstacle.code, obstacle.what) == ("frozen", str(home))
    assert "systemctl thaw" in obstacles.WORDS[obstacle.code].remedy


def test_sigkill_gets_through(ticker: Ticker, home: Path) -> None:
    put(ticker.pid, home)
    (home / "cgroup.freeze").write_text("1")
    assert (
        freezer.problem([home], []) == ""
    )  # it waits for that, and what is being written is written by then
    ticker.rests()
    assert identity.end([identity.identity(ticker.pid)]) == []


def test_sigstop_is_the_second_line(ticker: Ticker, home: Path) -> None:
    """It waits while the task is frozen, and stops it when it is thawed."""
    put(ticker.pid, home)
    (home / "cgroup.freeze").write_text("1")
    eventually(lambda: freezer.problem([home], []) == "", "it is frozen")
    os.kill(ticker.pid, signal.SIGSTOP)
    assert identity.state(ticker.pid) in "SR"
    (home / "cgroup.freeze").write_text("0")
    eventually(lambda: identity.state(ticker.pid) == "T", "it is stopped")
    ticker.rests()


def test_a_cgroup_inside_a_frozen_one_cannot_be_thawed(ticker: Ticker, home: Path) -> None:
    """And what is frozen inside stays so when the outer one, a unit's, is thawed."""
    inner = home / "inner"
    inner.mkdir()
    put(ticker.pid, inner)
    (inner / "cgroup.freeze").write_text("1")
    for value in "10":
        (home / "cgroup.freeze").write_text(value)
    for _ in range(2):
        assert freezer.problem([inner], [identity.identity(ticker.pid)]) == ""
        ticker.rests()


# --- the way in and back ------------------------------------------------------------------------------------


def test_each_goes_below_the_cgroup_it_was_in_and_back(home: Path) -> None:
    other = home / "other"
    other.mkdir()
    with program(FORKS, 8, home) as root:
        tasks = tree.tasks(root)
        homes = {pid: other if number % 2 else home for number, pid in enumerate(tasks)}
        for pid, cgroup in homes.items():
            put(pid, cgroup)
        told: list[Path] = []
        made(told).enter(lambda: tree.tasks(root))
        assert {pid: where(pid) for pid in tasks} == {pid: cgroup / NAME for pid, cgroup in homes.items()}
        assert sorted(told) == [home / NAME, other / NAME]
        assert "populated 1" in (other / "cgroup.events").read_text()  # nobody sees it empty
        freezer.release(told)
        assert {pid: where(pid) for pid in tasks} == homes
        freezer.release(told)  # again: nothing to do


def test_a_zombie_needs_no_place(home: Path) -> None:
    with program(ZOMBIE, 3, home) as root:
        told: list[Path] = []
        way = made(told)
        way.enter(lambda: tree.tasks(root))
        way.freeze(tree.tasks(root))
        assert freezer.problem(told, map(identity.identity, tree.tasks(root))) == ""
        freezer.release(told)


def test_a_tree_that_forks_while_it_is_moved(home: Path) -> None:
    with program(FORKS_ON, 3, home) as root:
        way = made([])
        with contextlib.suppress(Unavailable):
            way.enter(lambda: tree.tasks(root))
            assert where(root) == home / NAME
        freezer.release([home / NAME])
        assert where(root) == home


def test_threads_in_cgroups_of_their_own_are_left_there(home: Path) -> None:
    with program("import time; time.sleep(1000)", 1, home) as root:
        threaded = home / "threaded"
        threaded.mkdir()
        (threaded / "cgroup.type").write_text("threaded")
        told: list[Path] = []
        with pytest.raises(Unavailable, match="domain threaded"):
            made(told).enter(lambda: tree.tasks(root))
        assert where(root) == home and told == []


def test_one_that_was_moved_out_is_found(home: Path) -> None:
    with program(FORKS, 8, home) as root:
        tasks = [identity.identity(pid) for pid in tree.tasks(root)]
        told: list[Path] = []
        way = made(told)
        way.enter(lambda: tree.tasks(root))
        way.freeze(pid for pid, _ in tasks)
        assert freezer.problem(told, tasks) == ""
        put(root, home)
        assert freezer.problem(told, tasks) == f"{root} left the frozen cgroup"
        identity.end(tasks[1:2])  # that is another matter
        put(root, home / NAME)
        assert freezer.problem(told, tasks) == ""
        (told[0] / "cgroup.freeze").write_text("0")
        assert freezer.problem(told, tasks) == f"{told[0]} was thawed or removed"
        freezer.release(told)


# --- the keeper ---------------------------------------------------------------------------------------------


@pytest.fixture
def kept(
    ticker: Ticker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Hold, Worker, journal.Journal]]:
    """A dumped ticker that a keeper keeps, because there is no cgroup."""

    def nowhere() -> Path:
        raise Unavailable("not in this test")

    monkeypatch.setattr(place, "STATE", tmp_path)
    monkeypatch.setattr(freezer, "mount_point", nowhere)
    written = journal.Journal("0123456789ab", role="origin", pid=ticker.pid, other_host="there")
    hold = Hold(written)
    assert hold.prepare(lambda: [ticker.pid]) == [
        "kept still by a process, not by a frozen cgroup: not in this test"
    ]
    worker = Worker()
    written.did(Criu(worker.pid, worker.start))
    stages = ticker.dumped_at(worker, "post-dump")
    tasks = [identity.identity(ticker.pid)]
    written.did(Stop(tuple(tasks)))
    hold.keep(tasks, tasks, worker)
    hold.check()
    yield hold, worker, written
    hold.let_go()
    worker.close()
    stages.close()


def identity_of(written: journal.Journal) -> Identity:
    return records.read(written.directory).of(Keeper)[0].process


def cont(pid: int) -> None:
    """What somebody else does."""
    for _ in range(20):
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)


def test_criu_waits_on_when_its_driver_hangs_up(
    ticker: Ticker, kept: tuple[Hold, Worker, journal.Journal]
) -> None:
    hold, worker, written = kept
    assert hold.leave(worker)
    cont(ticker.pid)
    ticker.rests()
    assert worker.process.poll() is None
    assert undo.roll_back(records.read(written.directory))[1] == []
    ticker.runs()


def test_the_keeper_attaches_when_criu_is_killed(
    ticker: Ticker, kept: tuple[Hold, Worker, journal.Journal]
) -> None:
    """Only its tracer makes a task go on that is in a ptrace-stop. Source: ptrace(2)."""
    hold, worker, written = kept
    kill(worker)
    eventually(lambda: hold_problem(hold) == "", "the keeper traces it")
    cont(ticker.pid)
    ticker.rests()
    assert undo.roll_back(records.read(written.directory))[1] == []
    ticker.runs()


def test_what_a_keeper_traces_can_be_killed(
    ticker: Ticker, kept: tuple[Hold, Worker, journal.Journal]
) -> None:
    hold, worker, written = kept
    kill(worker)
    eventually(lambda: hold_problem(hold) == "", "the keeper traces it")
    assert undo.kill_origin(records.read(written.directory)) == []
    assert not identity.alive(identity_of(written))


@pytest.mark.parametrize("criu_first", [False, True])
def test_sigstop_is_sent_again_for_when_the_keeper_is_killed(
    ticker: Ticker,
    kept: tuple[Hold, Worker, journal.Journal],
    criu_first: bool,
) -> None:
    hold, worker, written = kept
    assert hold.leave(worker)
    if criu_first:
        kill(worker)
    cont(ticker.pid)
    time.sleep(0.3)
    assert identity.end([identity_of(written)]) == []
    eventually(lambda: identity.state(ticker.pid) == "T", "it is stopped")
    ticker.rests()


def hold_problem(hold: Hold) -> str:
    try:
        hold.check()
    except Exception as error:
        return str(error)
    return ""


def test_a_keeper_without_orders_ends_with_its_driver() -> None:
    code = "from migrate.processes.keeper import Keeper; print(*Keeper().identity)"
    words = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout.split()
    assert identity.wait_gone((int(words[0]), int(words[1])), time.monotonic() + 5)
