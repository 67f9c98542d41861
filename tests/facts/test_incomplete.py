"""CRIU's own lazy-pages fills in memory of a process that it has restored: meanwhile that is not moved on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.wait import eventually

from migrate.criu import worker
from migrate.criu.worker import Options, Worker
from migrate.inventory import incomplete

#: It removes a directory when all of its memory is there.
PROGRAM = (
    "import os, signal, sys; memory = bytearray(b'x' * (32 << 20)); os.rmdir(sys.argv[1]); signal.pause()"
)
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def pid(images: Path, tmp_path: Path) -> Iterator[int]:
    """A process, dumped: its number, and that of the one that it is restored as."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    (tmp_path / "begins").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "begins")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    eventually(lambda: not (tmp_path / "begins").exists(), "its memory is there")
    dump(process.pid, images)
    process.wait()
    yield process.pid
    with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it was not restored
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)


def dump(pid: int, images: Path) -> None:
    criu = Worker()
    try:
        for _ in criu.dump(pid, Options(images, "dump.log")):
            pass
    finally:
        criu.close()


def test_until_all_is_there(images: Path, pid: int) -> None:
    program = worker.program()
    assert program
    filler = subprocess.Popen([program, "lazy-pages", "-D", str(images), "-W", str(images)])
    criu = Worker(role="destination")
    try:
        eventually((images / "lazy-pages.socket").exists, "it can be asked")
        for stage in criu.restore(Options(images, "restore.log", more=later)):
            if stage.name == "pre-resume":
                assert [one.code for one in incomplete.obstacles([pid])] == ["incomplete"]
        eventually(lambda: not list(incomplete.obstacles([pid])), "all is there")
    finally:
        criu.close()
        filler.kill()
        filler.wait()


def later(opts: Any) -> None:
    """What the restore leaves out is filled in by who is asked."""
    opts.lazy_pages = opts.tcp_close = True
    opts.tcp_established = False
