"""System calls that CRIU's dump ends with EINTR: which they are shows before it, and they can begin again.

The judge is the program itself (tests/workloads/waiting.py), which tells what its calls have returned.
"""

# ruff: noqa: F401, F811  (fixtures of another file)

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from netns import eventually
from test_criu import Ticker, directory

from migrate import place
from migrate.criu import ended_calls
from migrate.criu.worker import Worker
from migrate.journal import journal
from migrate.pb.session_pb2 import EndedCall
from migrate.processes import freezer, identity, second_line, waits
from migrate.processes.freezer import Unavailable
from migrate.recovery import records, undo
from migrate.recovery.entries import Criu, EndedCalls, Stop
from migrate.recovery.hold import Hold
from tcpcp.criu import images

PROGRAM = Path(__file__).parents[1] / "workloads/waiting.py"
SHORT_S = 4
#: How late a call may return on a busy machine; less than it would wait if it had begun anew.
LATE_S = 1.5

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="elsewhere nothing is done about it")


class Waiting(Ticker):
    """The program, which has waited for two seconds."""

    def __init__(self, directory: Path, *words: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        super().__init__(directory, str(PROGRAM), str(self.port), *words)
        time.sleep(SHORT_S / 2)

    def ended(self) -> dict[str, list[float]]:
        """Name -> result, errno and seconds of the calls that have ended."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as sock:
            return dict(json.loads(sock.makefile("rb").readline()))

    def long_ones(self) -> dict[str, list[float]]:
        """Those of them that should not have."""
        return {name: what for name, what in self.ended().items() if not name.startswith("short")}

    def judge(self, unknown: Collection[str] = ()) -> None:
        """The long ones wait, but for *unknown*; the short ones end when they should have."""
        short = {"short sleep", "short nanosleep with a rest", "short clock_nanosleep"}
        eventually(lambda: short <= self.ended().keys(), "the short ones have ended")
        assert self.long_ones().keys() == set(unknown)
        for name in short:
            result, _, seconds = self.ended()[name]
            assert result == 0 and SHORT_S <= seconds < SHORT_S + LATE_S, name


@pytest.fixture
def waiting(directory: Path) -> Iterator[Waiting]:
    made = Waiting(directory)
    assert made.ended() == {}
    yield made
    made.end()


def dump_and_end(program: Waiting) -> list[waits.Wait]:
    """Dump it; its waits, as they were before."""
    worker, found = Worker(), []
    for stage in worker.dump(program.pid, program.options):
        if stage.name == "query-ext-files":
            found = waits.read([program.pid])
    worker.close()
    program.process.wait()
    inventory = program.images / "inventory.img"
    inventory.write_bytes(images.patch_inventory(inventory.read_bytes()))
    return found


def restore(program: Waiting) -> None:
    worker = Worker(role="destination")
    for _ in worker.restore(program.options):
        pass
    worker.close()


def restarted(pid: int) -> int:
    """How many threads wait in restart_syscall(2)."""
    calls = [task.joinpath("syscall").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(call.startswith(f"{waits.RESTART} ") for call in calls)


@pytest.mark.parametrize("stopped_before", [False, True])
def test_in_the_images(waiting: Waiting, stopped_before: bool) -> None:
    """One that was stopped in a call is in restart_syscall(2) since: the code says which call it was."""
    if stopped_before:
        os.kill(waiting.pid, signal.SIGSTOP)
        eventually(lambda: identity.state(waiting.pid) == "T", "it is stopped")
        os.kill(waiting.pid, signal.SIGCONT)
        eventually(lambda: restarted(waiting.pid) >= 8, "the threads are in their calls again")
    found = dump_and_end(waiting)
    ended_calls.begin_again(waiting.images, [EndedCall(tid=one.tid, number=one.number) for one in found])
    restore(waiting)
    # It is made by syscall(3), in whose code no number stands.
    waiting.judge(unknown={"futex"} if stopped_before else set())


def test_a_handler_may_have_been_waited_for(directory: Path) -> None:
    """Then they end: were they to begin again after the handler has run, nothing would end them."""
    program = Waiting(directory, "handler")
    try:
        assert dump_and_end(program) == []
        restore(program)
        eventually(lambda: "poll" in program.long_ones(), "it has ended")
        assert program.long_ones()["poll"][:2] == [-1, errno.EINTR]
    finally:
        program.end()


@pytest.mark.parametrize("keeper", [False, True])
def test_on_the_way_back(
    waiting: Waiting, keeper: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps the tree still; the driver and its guardian have died, so that CRIU is to let go by itself."""

    def nowhere() -> Path:
        raise Unavailable("not in this test")

    monkeypatch.setattr(place, "STATE", tmp_path)
    if keeper:
        monkeypatch.setattr(freezer, "mount_point", nowhere)
    written = journal.Journal("0123456789ab", role="origin", pid=waiting.pid, other_host="there")
    hold = Hold(written)
    assert len(hold.prepare(lambda: [waiting.pid])) == keeper
    worker, tasks = Worker(), [identity.identity(waiting.pid)]
    written.did(Criu(worker.pid, worker.start))
    stages = worker.dump(waiting.pid, waiting.options)
    for stage in stages:
        if stage.name == "query-ext-files":
            found = waits.read([waiting.pid])
        elif stage.name == "post-dump":
            break
    written.did(Stop(tuple(tasks)))
    second_line.hold(tasks[0])
    written.did(EndedCalls(tuple(tasks), tuple(found)))
    hold.keep(tasks, tasks, worker)
    worker.leave()
    undone, problems = undo.roll_back(records.read(written.directory))
    assert problems == [] and f"{len(found)} of {len(found)} system calls begin again" in undone
    stages.close()
    waiting.judge()
    hold.let_go()
    worker.close()
