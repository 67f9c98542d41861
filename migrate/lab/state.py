"""What is remembered of a running lab: its init processes, in a directory below /run, under a lock.

A process is identified by PID and start time, and signalled through a pidfd, so a PID that was given
to somebody else is never killed. The state also names the boot it belongs to.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from migrate.lab.enter import start_ticks
from migrate.lab.errors import LabError

BASE = Path("/run/migrate-lab")
LOCK_DEADLINE_S = 60.0
LOCK_RETRY_S = 0.02
END_DEADLINE_S = 20.0
NAME = re.compile(r"[a-z0-9-]{1,32}")


class Init(NamedTuple):
    """PID 1 of one host as the machine sees it: *start_ticks* in clock ticks since boot."""

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        """Return whether it is this very process that runs under the PID."""
        return start_ticks(self.pid) == self.start_ticks


def directory(name: str, kind: str = "") -> Path:
    """Return the run directory of lab *name*. *kind*: its ending, for labs of another kind than namespaces.

    :raises LabError: the name is not 1 to 32 of a-z, 0-9 and -.
    """
    if not NAME.fullmatch(name):
        raise LabError(f"{name!r} is not a lab's name: use 1 to 32 of the characters a-z, 0-9 and -")
    return BASE / (name + kind)


def boot_id() -> str:
    """Return what distinguishes this boot of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextlib.contextmanager
def locked(name: str, kind: str = "") -> Iterator[Path]:
    """Hold the lock of lab *name*; yield its run directory, made if it was missing.

    The directory may be gone afterwards (:func:`forget`).
    :raises LabError: another process held the lock for a minute, or the directory cannot be made.
    """
    path = directory(name, kind)
    deadline = time.monotonic() + LOCK_DEADLINE_S
    descriptor = None
    try:
        while (descriptor := _try_lock(path)) is None:
            if time.monotonic() > deadline:
                raise LabError(f"lab {name!r} is being brought up or down by another process: try again")
            time.sleep(LOCK_RETRY_S)  # flock(2) has no deadline of its own.
        yield path
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """Lock the run directory itself; None if another holds it or removed it meanwhile."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None  # Somebody's forget() was between our two steps.
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}; the lab needs root") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def save(path: Path, inits: Mapping[str, Init]) -> None:
    """Write the state of the lab in run directory *path*, all or nothing."""
    document = {"boot": boot_id(), "inits": {node: list(init) for node, init in inits.items()}}
    temporary = path / "state.json.new"
    temporary.write_text(json.dumps(document))
    temporary.replace(path / "state.json")


def load(path: Path) -> dict[str, Init]:
    """Return the inits that were saved in *path*, dead or alive; none if there is no (valid) state."""
    try:
        document = json.loads((path / "state.json").read_text())
        if document["boot"] != boot_id():
            return {}
        return {str(node): Init(int(pid), int(ticks)) for node, (pid, ticks) in document["inits"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}  # none that save() has written


def end(inits: Mapping[str, Init]) -> None:
    """Kill the *inits* that live and wait until they, and all that ran in their hosts, are gone.

    :raises LabError: one is still there after the deadline, or not ours to end.
    """
    pidfds = {node: pidfd for node, init in inits.items() if (pidfd := _killed(init)) is not None}
    try:
        deadline = time.monotonic() + END_DEADLINE_S
        for node, pidfd in pidfds.items():
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise LabError(f"{node}'s init {inits[node].pid} does not end: look at /proc/PID/stack")
    finally:
        for pidfd in pidfds.values():
            os.close(pidfd)


def _killed(init: Init) -> int | None:
    """Kill one init; return its pidfd, None if it had gone. :raises LabError: it is not ours to kill."""
    try:
        pidfd = os.pidfd_open(init.pid)
    except ProcessLookupError:
        return None
    if not init.alive():
        os.close(pidfd)
        return None
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        os.close(pidfd)
        raise LabError("to bring a lab down needs root") from None
    return pidfd


def empty(path: Path) -> None:
    """Remove everything in run directory *path*, but not *path*, which is the lock.

    The directories in it are empty here: what was mounted on them was so in the hosts alone.
    :raises LabError: one is not, so somebody else uses it; it is left alone.
    """
    for entry in path.iterdir():
        try:
            entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        except OSError as error:
            raise LabError(f"{entry}: {error.strerror}; nothing of the lab's is in it: remove it") from None


def forget(path: Path) -> None:
    """Remove run directory *path*, and the directory of all labs if it was the last."""
    empty(path)
    path.rmdir()
    with contextlib.suppress(OSError):
        BASE.rmdir()
