"""What is built once and kept: a directory below /var/cache, its lock, and the programs that fill it.

A thing appears in the cache by one rename, so what is there is whole; who is killed leaves a directory ``*.new``,
which the next one to build the same removes.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from migrate.lab import enter
from migrate.lab.errors import LabError

#: As it is called without symbolic links: where they lead need not be seen in the segment.
CACHE = Path(os.path.realpath(os.environ.get("MIGRATE_LAB_CACHE") or "/var/cache/migrate-lab"))
OTHER = "MIGRATE_LAB_CACHE names another directory"
#: For an image with its packages and tree, and one kernel with what it is made of; and for one more of these.
ROOM_MB, MORE_MB = 1500, 400
#: Who builds may have to download a few hundred megabytes and to unpack them on a busy machine.
BUILD_DEADLINE_S = 1800.0
RETRY_S = 0.2
SAID_BYTES = 1500
#: Its child is PID 1 of what runs there, so the end of that, by the end of this one for one, is the end of all.
#: /proc stays the machine's: paths through it are given.
_ALONE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--")


def run(command: Sequence[str | Path], *, timeout_s: float = BUILD_DEADLINE_S, **options: Any) -> str:
    """Run a program to its end, in a mount and a PID namespace of its own; return its output.

    Nothing that it mounts is mounted here, and nothing that it has started outlives it, or this process, be that
    killed.

    :raises LabError: it is missing, failed or took too long; the message ends with what it said.
    """
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        raise LabError(f"{words[0]} is not installed: tools/setup vm installs what machines need")
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [*_ALONE, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            preexec_fn=end_with(os.getpid()),
            **options,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{words[0]} did not end within {timeout_s:g} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-SAID_BYTES:]
        why = f"no space left; {room()}" if os.strerror(errno.ENOSPC) in done.stderr + done.stdout else ""
        raise LabError(f"{words[0]} failed with status {done.returncode}: {why and why + ': '}{said}")
    return done.stdout


def room() -> str:
    """Return how much there is, and how much is needed, in a sentence."""
    try:
        there = f"{shutil.disk_usage(CACHE).free // 1_000_000} MB are free"
    except OSError as error:
        there = str(error.strerror)
    return f"in {CACHE} {there}, where machines need {ROOM_MB} MB, and {MORE_MB} MB for each kernel more; {OTHER}"


def need_room() -> None:
    """:raises LabError: there is too little for an image, a kernel, and what they are made of."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(CACHE).free < ROOM_MB * 1_000_000:
        raise LabError(room())


def end_with(parent: int) -> Callable[[], None]:
    """Return what a child of *parent* calls, before it executes a program, to be killed when *parent* ends."""

    def prepare() -> None:
        enter.libc.prctl(enter.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # It ended before that.
            os._exit(1)

    return prepare


@contextlib.contextmanager
def filling() -> Iterator[None]:
    """A ``with`` block that reads the cache, and makes what is missing in it.

    :raises LabError: the cache cannot be used as it is, or what is in it; the message says where and why.
    """
    complete_path()
    other = f"what machines are made of is kept in {CACHE}: {OTHER}"
    if len(str(CACHE).split()) != 1:  # mmdebstrap's hooks take it for two.
        raise LabError(f"{CACHE} has a blank in it; {other}")
    try:
        yield
    except OSError as error:
        other = room() if error.errno == errno.ENOSPC else other
        raise LabError(f"{error.filename or CACHE}: {error.strerror}; {other}") from error


def complete_path() -> None:
    """Have programs looked for where only root's PATH leads, too: su(1) leaves that of a user."""
    known = [one for one in os.environ.get("PATH", "").split(":") if one]
    more = [one for one in enter.PATH.split(":") if one not in known]
    os.environ["PATH"] = ":".join([*known, *more])


@contextlib.contextmanager
def locked(name: str = "lock") -> Iterator[None]:
    """Hold a lock of the cache: one builds, the others wait and find it built.

    :raises LabError: somebody else builds for longer than a build may take.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(CACHE / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + BUILD_DEADLINE_S
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise LabError(f"{CACHE / name}: another process has been building for too long")
            time.sleep(RETRY_S)  # flock(2) has no deadline of its own.
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def built(name: str, build: Callable[[Path], None]) -> Path:
    """Return the directory *name* of the cache, made by *build* in an empty one if it is not there.

    :raises LabError: it cannot be built; nothing is left of it.
    """
    path = CACHE / name
    if path.exists():
        return path
    with locked():
        if path.exists():
            return path
        new = path.with_name(path.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            build(new)
            new.rename(path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return path
