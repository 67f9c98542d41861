"""CRIU: the order of its stages, and what becomes of the tasks when it, or we, end at one of them.

The design rests on these: what a rollback may leave to CRIU, and what a guardian has to do itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from netns import eventually

from migrate.criu import log
from migrate.criu.worker import Options, Worker
from migrate.errors import CriuError
from migrate.processes import identity, let_go
from migrate.recovery import settle
from migrate.testing import runtimes
from tcpcp.criu import images

PR_SET_CHILD_SUBREAPER = 36
#: Counts in a file, as long as it runs.
TICKER = """
import os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
while True:
    count = int(os.pread(file, 20, 0) or b"0") + 1
    os.pwrite(file, b"%d" % count, 0)
    time.sleep(0.002)
"""
ECHO = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while data := connection.recv(100):
    connection.sendall(data)
"""


class Ticker:
    """A process that counts in a file while it runs, and its images."""

    def __init__(self, directory: Path, *command: str) -> None:
        self.file = directory / "count"
        self.images = directory / "images"
        self.images.mkdir()
        words = command or ("-c", TICKER, str(self.file))
        null = subprocess.DEVNULL
        self.process = subprocess.Popen(
            [sys.executable, *words], stdin=null, stdout=null, stderr=null, cwd="/", start_new_session=True
        )
        self.pid = self.process.pid
        self.options = Options(self.images, "criu.log")

    def count(self) -> int:
        return int(self.file.read_text() or 0) if self.file.exists() else 0

    def runs(self) -> None:
        """It counts, or the test fails."""
        before = self.count()
        eventually(lambda: self.count() > before + 2, "it counts")

    def rests(self) -> None:
        """It does not count: not while another process gets through a few hundred system calls."""
        before = self.count()
        subprocess.run(["find", "/usr/share/doc", "-maxdepth", "1"], capture_output=True, check=True)
        assert self.count() == before

    def dump_and_end(self) -> list[str]:
        """Dump it completely, ready to be restored; it is killed, but not reaped. The stages."""
        worker = Worker()
        names = [stage.name for stage in worker.dump(self.pid, self.options)]
        worker.close()
        inventory = self.images / "inventory.img"
        inventory.write_bytes(images.patch_inventory(inventory.read_bytes()))
        eventually(lambda: identity.state(self.pid) == "Z", "it is dead and not reaped")
        return names

    def dump_and_reap(self) -> list[str]:
        """The same, and its PID is free."""
        names = self.dump_and_end()
        self.process.wait()
        return names

    def restored_at(self, worker: Worker, stage: str) -> Iterator[object]:
        """Restore it, and return when CRIU waits at *stage*; the generator is to be kept."""
        stages = worker.restore(self.options)
        assert stage in (one.name for one in stages)
        return stages

    def dumped_at(self, worker: Worker, stage: str) -> Iterator[object]:
        """Dump it, and return when CRIU waits at *stage*; the generator is to be kept."""
        stages = worker.dump(self.pid, self.options)
        assert stage in (one.name for one in stages)
        return stages

    def end(self) -> None:
        """Kill it, whoever made it, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            identity.end([identity.identity(self.pid)])
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@pytest.fixture
def directory() -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("needs root: dumps processes")
    # What CRIU leaves comes to us and can be reaped.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    path = Path(tempfile.mkdtemp(prefix="criu-facts-", dir="/dev/shm"))
    yield path
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    shutil.rmtree(path)


@pytest.fixture
def ticker(directory: Path) -> Iterator[Ticker]:
    made = Ticker(directory)
    made.runs()
    yield made
    made.end()


def kill(worker: Worker) -> None:
    worker.process.kill()
    worker.process.wait()


def test_a_terminal_sends_its_signals_to_the_driver_and_not_to_criu() -> None:
    """Ctrl-C goes to each process of the foreground group: see test_a_task_may_die_of_criu_being_killed."""
    worker = Worker()
    group, session = os.getpgid(worker.pid), os.getsid(worker.pid)
    worker.close()
    # The leader of a session could get a terminal that it opens for its own.
    assert (group, session) == (worker.pid, os.getsid(0))


def test_nobody_waits_for_the_first_breakpoint() -> None:
    """As long as there is a worker the kernel has an event, so that it is ready for the breakpoints of any CRIU."""

    def events() -> int:
        targets = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
        return [str(one) for one in targets].count("anon_inode:[perf_event]")

    before = events()
    worker = Worker()
    held = events()
    worker.close()
    assert (before, held, events()) == (0, 1, 0)


def test_stages_of_a_dump_and_of_a_restore(ticker: Ticker) -> None:
    """Source: criu/action-scripts.c action_names[]; cr-dump.c cr_dump_tasks(), cr-restore.c restore_root_task().
    There is no network-lock without a network namespace in the tree."""
    assert ticker.dump_and_reap() == ["pre-dump", "query-ext-files", "post-dump"]
    worker = Worker()
    names = [stage.name for stage in worker.restore(ticker.options)]
    worker.close()
    assert names == ["pre-restore", "post-restore", "pre-resume", "post-resume"]
    ticker.runs()


@pytest.mark.parametrize("stage", ["query-ext-files", "post-dump"])
def test_tasks_run_on_when_criu_dies_while_it_dumps(ticker: Ticker, stage: str) -> None:
    """They are seized, and the kernel lets go what a tracer held. Source: ptrace(2), kernel exit_ptrace()."""
    worker = Worker()
    stages = ticker.dumped_at(worker, stage)
    ticker.rests()
    kill(worker)
    ticker.runs()
    with pytest.raises(CriuError, match="in the middle"):
        next(stages)
    worker.close()


def test_a_task_may_die_of_criu_being_killed_while_it_dumps(directory: Path) -> None:
    """CRIU has the task execute a system call and a breakpoint, in its own text. When nobody traces it any more the
    breakpoint's signal is its own. Of kills in these 20 ms one in twelve was seen to do that, so the kernel is told
    not to choose CRIU when memory is short.

    Source: compel/src/lib/infect.c compel_execute_syscall(); mm/oom_kill.c oom_badness().
    """
    ends = (end_of_a_dump_cut_off(directory / str(number), 0.001 * (number % 20)) for number in range(200))
    assert next(filter(None, ends)) == -signal.SIGTRAP


def may_raise_limits() -> bool:
    """Whether we have CAP_SYS_RESOURCE; the root of a container often has not."""
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(status["CapEff"], 16) >> 24 & 1)


def end_of_a_dump_cut_off(directory: Path, after_s: float) -> int | None:
    """Kill CRIU so long after it began to look at the tasks: how the task ended, or None if it runs on."""
    directory.mkdir()
    ticker, worker = Ticker(directory), Worker()
    spared = Path(f"/proc/{worker.process.pid}/oom_score_adj").read_text() == "-1000\n"
    assert spared == may_raise_limits()
    ticker.runs()
    stages = ticker.dumped_at(worker, "query-ext-files")
    threading.Timer(after_s, worker.process.kill).start()
    with contextlib.suppress(CriuError):
        for _ in stages:
            worker.process.wait()
    worker.close()
    before = ticker.count()
    eventually(
        lambda: ticker.process.poll() is not None or ticker.count() > before + 2, "it runs or has ended"
    )
    if (ended := ticker.process.poll()) is None:
        ticker.end()
    return ended


@pytest.mark.parametrize("stage", ["query-ext-files", "post-dump"])
def test_tasks_run_on_when_nobody_answers_criu(ticker: Ticker, stage: str) -> None:
    """A hung-up driver is a no. Source: criu/cr-dump.c cr_dump_finish(), pstree_switch_state(TASK_ALIVE)."""
    worker = Worker()
    stages = ticker.dumped_at(worker, stage)
    worker.close()
    ticker.runs()
    del stages


@pytest.mark.parametrize("end", [kill, Worker.close], ids=["killed", "hung up"])
def test_pending_sigstop_keeps_a_task_stopped_when_criu_ends(ticker: Ticker, end: object) -> None:
    """It stops before it executes an instruction. Source: kernel get_signal(), ptrace_stop()."""
    worker = Worker()
    stages = ticker.dumped_at(worker, "post-dump")
    before = ticker.count()
    os.kill(ticker.pid, signal.SIGSTOP)
    end(worker)  # type: ignore[operator]
    eventually(lambda: identity.state(ticker.pid) == "T", "it is stopped")
    assert ticker.count() == before
    os.kill(ticker.pid, signal.SIGCONT)
    ticker.runs()
    worker.close()
    del stages


@pytest.mark.parametrize("number", log.STOP_OR_CONT)
def test_what_interrupts_a_dump(ticker: Ticker, number: signal.Signals) -> None:
    """It does not say which of the two it was; what can be blocked, or is ignored, lets it work in the task.
    Source: kernel/signal.c ptrace_trap_notify(); compel/src/lib/infect.c parasite_trap()."""
    worker = Worker()
    stages = ticker.dumped_at(worker, "query-ext-files")
    os.kill(ticker.pid, number)
    with pytest.raises(CriuError) as caught:
        list(stages)
    assert log.interrupted(caught.value.problem.details) == {ticker.pid: log.STOP_OR_CONT}
    worker.close()
    ticker.runs()  # a SIGSTOP is lost


def test_sigcont_takes_back_a_pending_sigstop(ticker: Ticker) -> None:
    """Also while CRIU holds the task, so an undo need not wait for its end. Source: kernel prepare_signal()."""
    worker = Worker()
    stages = ticker.dumped_at(worker, "post-dump")
    os.kill(ticker.pid, signal.SIGSTOP)
    os.kill(ticker.pid, signal.SIGCONT)
    worker.close()
    ticker.runs()
    del stages


def test_restored_tasks_wait_for_ever_when_criu_dies(ticker: Ticker) -> None:
    """They sleep on a futex that only CRIU wakes; somebody must kill them.
    Source: criu/pie/restorer.c restore_finish_stage(task_entries_local, CR_STATE_RESTORE_SIGCHLD)."""
    ticker.dump_and_reap()
    worker = Worker(mark="MIGRATE_ID=facts")
    stages = ticker.restored_at(worker, "post-restore")
    kill(worker)
    eventually(lambda: identity.state(ticker.pid) == "S", "it sleeps: it was still on its way there")
    ticker.rests()
    assert not let_go.any_runs([identity.identity(ticker.pid)])
    assert identity.end([identity.identity(ticker.pid)]) == []
    worker.close()
    del stages


def test_criu_kills_what_it_built_when_nobody_answers(ticker: Ticker) -> None:
    """Source: criu/cr-restore.c restore_root_task(), out_kill."""
    ticker.dump_and_reap()
    worker = Worker()
    stages = ticker.restored_at(worker, "post-restore")
    built = identity.identity(ticker.pid)
    worker.close()
    assert identity.wait_gone(built, time.monotonic() + 5)
    assert (ticker.images / settle.STATISTICS).exists() and log.gave_up(ticker.images / "criu.log")
    del stages


@pytest.mark.parametrize("end", [kill, Worker.close], ids=["killed", "hung up"])
def test_from_pre_resume_on_a_restored_tree_runs_whoever_ends(ticker: Ticker, end: object) -> None:
    """Its tasks are whole and stopped at their last system call, and a failure is not asked for any more.
    Source: criu/cr-restore.c restore_root_task(), from run_scripts(ACT_PRE_RESUME) on."""
    ticker.dump_and_reap()
    worker = Worker()
    stages = ticker.restored_at(worker, "pre-resume")
    ticker.rests()
    end(worker)  # type: ignore[operator]
    ticker.runs()
    assert let_go.any_runs([identity.identity(ticker.pid)])
    assert (ticker.images / settle.STATISTICS).exists() is (end is Worker.close)
    assert not log.gave_up(ticker.images / "criu.log")
    worker.close()
    del stages


def test_helpers_of_criu_keep_its_environment(ticker: Ticker) -> None:
    """Until a restored task gets its own; that is how what a dead CRIU left is found."""
    worker = Worker(mark="MIGRATE_ID=facts")
    assert [pid for pid, _ in identity.with_environment("MIGRATE_ID=facts")] == [worker.pid]
    worker.close()
    assert identity.with_environment("MIGRATE_ID=facts") == []


def test_zombie_keeps_its_pid_from_being_restored(ticker: Ticker) -> None:
    """Source: clone3(2), EEXIST of set_tid."""
    ticker.dump_and_end()
    worker = Worker()
    with pytest.raises(CriuError) as caught:
        for _ in worker.restore(ticker.options):
            pass
    worker.close()
    assert "File exists" in " ".join(caught.value.problem.details)
    ticker.process.wait()


def test_tcp_close_leaves_tcp_alone(directory: Path) -> None:
    """No repair mode, no image of the stream, the connection lives on; the inventory is marked.
    Source: criu/sk-tcp.c dump_one_tcp(), criu/image.c prepare_inventory()."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        echo = Ticker(directory, "-c", ECHO, str(server.getsockname()[1]))
        peer, _ = server.accept()
    peer.sendall(b"before")
    assert peer.recv(100) == b"before"
    worker = Worker()
    stages = echo.dumped_at(worker, "post-dump")
    peer.sendall(b"meanwhile")
    worker.close()
    assert peer.recv(100) == b"meanwhile"
    assert list(echo.images.glob("tcp-stream-*")) == []
    inventory = (echo.images / "inventory.img").read_bytes()
    assert images.patch_inventory(inventory) != inventory
    peer.close()
    echo.end()
    del stages


# --- what we wait for ------------------------------------------------------------------------------------


class Enough(Exception):
    """What a test's watch ends a wait with."""


@pytest.mark.parametrize("served", [0, 1, 40])
def test_a_dump_that_is_given_up_in_the_middle_lets_the_task_run_on(ticker: Ticker, served: int) -> None:
    """It waits for us to take its pages, with its own code in the task; we hang up.

    :param served: messages of its pages that were read before.
    """
    ours, theirs = socket.socketpair()
    began = time.monotonic()

    def heed() -> None:
        if time.monotonic() > began + 1:
            raise Enough

    worker = Worker(inherit=[theirs.fileno()], heed=heed)
    options = Options(ticker.images, "criu.log", page_server_fd=theirs.fileno())
    stages = worker.dump(ticker.pid, options)
    theirs.close()

    def serve() -> None:
        for _ in range(served):
            ours.recv(32, socket.MSG_WAITALL)
            ours.send(b"\0")

    served_by = threading.Thread(target=serve, daemon=True)
    served_by.start()
    with pytest.raises(Enough):
        for _ in stages:
            pass
    ticker.rests()
    ours.shutdown(socket.SHUT_RDWR)
    served_by.join()
    worker.close()
    ours.close()
    ticker.runs()


def test_a_worker_that_dies_is_noticed_although_its_socket_stays_open(tmp_path: Path) -> None:
    """Whoever has a copy of the other end, as CRIU's helpers have, keeps us from seeing that it ends."""
    program = tmp_path / "criu"
    program.write_text("#!/bin/sh\nsleep 20 &\necho $! > ${0%/*}/helper\nsleep 20\n")
    program.chmod(0o755)
    worker = Worker(str(program))
    killer = threading.Timer(0.5, worker.process.kill)
    killer.start()
    began = time.monotonic()
    with pytest.raises(CriuError, match=r"killed by SIGKILL in the middle \(version\)"):
        worker.version()
    assert time.monotonic() - began < 5
    worker.close()
    os.kill(int((tmp_path / "helper").read_text()), signal.SIGKILL)


# --- runtimes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", runtimes.CHECKS, ids=lambda check: check.__name__)
def test_a_bare_process_is_a_runtime(ticker: Ticker, check: Callable[[runtimes.Case], None]) -> None:
    @contextlib.contextmanager
    def other() -> Iterator[int]:
        process = subprocess.Popen(["sleep", "600"])
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()

    def dumped() -> None:
        inventory = ticker.images / "inventory.img"
        inventory.write_bytes(images.patch_inventory(inventory.read_bytes()))
        ticker.process.wait()

    ticker.runs()
    check(runtimes.Case("bare", ticker.pid, ticker.images, dumped, ticker.runs, other))
