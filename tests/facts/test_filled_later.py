"""Real CRIU restores a tree without its memory, which is filled in while the tree runs: no byte of it is wrong.

What it does to its mappings meanwhile, and forks; who fills in is killed; what two processes share stays shared.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate import place
from migrate.criu.worker import Options, Worker
from migrate.inventory import incomplete
from migrate.memory import filling
from migrate.memory.ahead import SentAhead
from migrate.memory.filling import Later
from migrate.memory.later_images import PARENT
from migrate.processes import identity
from tcpcp.criu import tree

WORKLOAD = Path(__file__).parents[1] / "workloads" / "shifting.py"
MEGABYTES = 96
PR_SET_CHILD_SUBREAPER = 36
TIMEOUT_S = 60
#: When CRIU has let it run.
RUNS = "runs"


class Shifting:
    """The workload. :ivar pid: its process."""

    def __init__(self, directory: Path, seed: int, megabytes: int) -> None:
        path = directory / "said"
        os.mkfifo(path)
        self._fifo = os.open(path, os.O_RDWR)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.pid = subprocess.Popen(
            [sys.executable, str(WORKLOAD), str(seed), str(megabytes), str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ).pid
        self._left = b""
        assert self.said() == "READY"

    def said(self) -> str:
        """What it says next."""
        while b"\n" not in self._left:
            ready, _, _ = select.select([self._fifo], [], [], TIMEOUT_S)
            assert ready, f"it is silent: {self._state()}"
            self._left += os.read(self._fifo, 4096)
        line, _, self._left = self._left.partition(b"\n")
        return line.decode()

    def _state(self) -> list[tuple[str, str]]:
        """Where each of its threads is, and of its children."""
        pids = [self.pid, *map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]
        tasks = [one for pid in pids for one in sorted(Path(f"/proc/{pid}/task").iterdir())]
        return [(str(one), (one / "wchan").read_text() + (one / "syscall").read_text()) for one in tasks]

    def judge(self) -> None:
        """All that it has in memory is right."""
        os.kill(self.pid, signal.SIGUSR1)
        answers = [self.said(), self.said()]
        assert all(one.startswith("OK ") for one in answers), answers

    def close(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)
        os.close(self._fifo)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        reap(self.pid)


def reap(group: int) -> None:
    """Our children of that process group have been killed: nothing of them is left; others are not waited for."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, 0):
            pass


@pytest.fixture
def images() -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("needs root: reads other processes and runs CRIU")
    directory = place.choose_images(place.new_id())
    place.make_images(directory)
    yield directory
    subprocess.run(["rm", "-rf", str(directory)], check=True)


def dump(pid: int, images: Path) -> None:
    """Its memory is sent ahead, and what has changed then is with CRIU's images."""
    ahead = SentAhead(images, lambda: tree.tasks(pid), lambda _: None, float("inf"))
    ahead.before_freeze(lambda: None)
    pages = ahead.at_dump()
    criu = Worker(inherit=[pages.descriptor])
    try:
        options = Options(images, "dump.log", page_server_fd=pages.descriptor)
        pages.start()
        for _ in criu.dump(pid, options):
            pass
        pages.finish(TIMEOUT_S)
    finally:
        pages.close()
        criu.close()
    reap(pid)
    levels = sorted(images.glob("level-*"))
    for level, child in zip(levels, [*levels[1:], images], strict=True):
        level.rename(child / PARENT)


class Restored:
    """The tree, restored and about to run; and who fills in its memory, who has been told to go on.

    :ivar is_later: whether some of its memory is not there yet. :ivar second: the second process that fills it in.
    """

    def __init__(self, images: Path, when: str, run: Callable[[Restored], None]) -> None:
        self.filling = Later()
        self.criu = Worker(role="destination")
        try:
            self.is_later = self.filling.prepare(images)
            for stage in self.criu.restore(Options(images, "restore.log", more=self._options)):
                if stage.name == "post-restore":
                    assert stage.pid
                    self.filling.check()
                    self.filling.keep([identity.identity(pid) for pid in tree.tasks(stage.pid)])
                    os.kill(stage.pid, signal.SIGUSR2)
                if stage.name == when:
                    run(self)
            if when == RUNS:
                run(self)
            self.filled = self.filling.finish(TIMEOUT_S)
        finally:
            self.criu.close()
            self.filling.close()

    @property
    def first(self) -> int:
        """The process that fills it in."""
        return self.filling._process.pid

    def second(self) -> int:
        """The one that would take its place."""
        (pid,) = map(int, Path(f"/proc/{self.first}/task/{self.first}/children").read_text().split())
        return pid

    def _options(self, opts: Any) -> None:
        opts.lazy_pages = self.is_later
        opts.tcp_close, opts.tcp_established = True, False


def nothing(_: Restored) -> None:
    """It is left alone."""


def first_is_killed(restored: Restored) -> None:
    os.kill(restored.first, signal.SIGKILL)


def second_is_killed(restored: Restored) -> None:
    os.kill(restored.second(), signal.SIGKILL)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is filled in page by page, so that much happens meanwhile."""
    program = "from migrate.memory import filler, filling_in; filling_in.CHUNK_BYTES = 4096; filler.main()"
    monkeypatch.setattr(filling, "PROGRAM", ("-c", program))


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("when", ["pre-resume", RUNS])
@pytest.mark.parametrize("meanwhile", [nothing, first_is_killed, second_is_killed])
def test_a_process_that_changes_its_memory_meanwhile(
    images: Path, tmp_path: Path, when: str, meanwhile: Callable[[Restored], None]
) -> None:
    shifting = Shifting(tmp_path, random.randrange(1 << 30), MEGABYTES)
    try:
        shifting.judge()
        dump(shifting.pid, images)
        restored = Restored(images, when, meanwhile)
        assert restored.filled.problem == ""
        assert restored.filled.size_bytes > MEGABYTES << 17
        shifting.judge()
    finally:
        shifting.close()


def test_meanwhile_it_is_not_moved_on(images: Path, tmp_path: Path) -> None:
    """A dump would not find what is missing."""
    found = []

    def look(_: Restored) -> None:
        found.extend(one.code for one in incomplete.obstacles([shifting.pid]))

    shifting = Shifting(tmp_path, 1, MEGABYTES)
    try:
        dump(shifting.pid, images)
        Restored(images, "pre-resume", look)
        assert found == ["incomplete"]
        assert list(incomplete.obstacles([shifting.pid])) == []
    finally:
        shifting.close()
