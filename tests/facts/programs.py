"""Programs that tests look at, and that wait to be killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from netns import eventually

#: What every test program may use; it says that it is ready by making a file, and waits to be killed.
PRELUDE = """
import ctypes, fcntl, os, signal, socket, struct, sys, threading, time
def ready():
    open(sys.argv[1], "w").close()
    signal.pause()
"""


@contextlib.contextmanager
def program(code: str, **more: object) -> Iterator[int]:
    """Run *code* detached as `migrate-lab spawn` does, until it is ready; yield its PID."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
    with tempfile.TemporaryDirectory() as directory:
        flag = Path(directory, "ready")
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, str(flag)],
            start_new_session=True,
            cwd="/tmp",
            **options,  # type: ignore[call-overload]
        )
        try:
            eventually(lambda: flag.exists() or process.poll() is not None, "the test's program is ready", 10)
            assert process.poll() is None, "the test's program failed"
            yield process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.communicate()


#: The number of futex(2), in which a thread waits for a lock; one that is about to begin for the interpreter's.
_FUTEX = "202" if os.uname().machine == "x86_64" else "98"


def is_in_a_call(thread: threading.Thread) -> bool:
    """Whether it sleeps in a system call of its own, and not for a lock."""
    number = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()[0]
    return number not in ("running", "-1", _FUTEX)


def threads_named(name: str) -> list[str]:
    """The numbers of this process's threads that the kernel knows by *name*."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            if task.joinpath("comm").read_text() == name + "\n":
                found.append(task.name)
    return found
