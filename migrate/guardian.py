"""A process that waits for its driver or agent to die, and undoes what it left.

``python -m migrate.guardian DIRECTORY`` waits for the lock of a journal. The kernel gives it away when
the owner ends, however it ends. A journal that is closed by then was the normal end. Before COMMIT the
guardian rolls back; after it, it leaves the origin's copy frozen, since the destination may have it, and
the destination's copy as it is if it runs.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from migrate import journal, processes, undo
from migrate.errors import MigrateError
from migrate.journal import Record
from migrate.machine import State

READY = b"ready\n"
START_S = 15.0
#: From here on the origin never resumes by itself.
COMMITTED = frozenset({State.COMMITTED.value, State.ACTIVATED.value, State.RELEASED.value})

#: What a tree that runs on the destination needs there.
STAYS = frozenset({"switch", "tree", "copied", "directory"})


class Guardian:
    """A guardian process for the journal in *directory*, running when the constructor returns.

    :raises MigrateError: it did not start; nothing must be touched then.
    """

    def __init__(self, directory: Path, role: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "migrate.guardian", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._role = role

    def wait_ready(self) -> None:
        """Wait until it watches; it is started early and awaited late."""
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], START_S)
        if not ready or os.read(stdout.fileno(), len(READY)) != READY:
            self._process.kill()
            raise MigrateError("the guardian did not start", phase="prepare", role=self._role)
        stdout.close()

    def wait_end(self) -> None:
        """Reap it; the journal has been closed and let go of."""
        try:
            self._process.wait(timeout=START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def settle(directory: Path) -> Record | None:
    """Deal with the journal of an owner that is gone; the caller holds its lock.

    :return: the journal if a person must look at it, else None: nothing is left of it.
    """
    try:
        record = journal.read(directory)
    except FileNotFoundError:
        return None
    if record.role == "origin" and not record.end and record.state in COMMITTED:
        return record
    if record.role == "destination" and record.state in COMMITTED and not record.end:
        _settle_destination(record)
    elif not record.end:
        _, problems = undo.roll_back(record)
        if problems:
            note_problems(directory, problems)
            return journal.read(directory)
    journal.forget(directory)
    return None


def _settle_destination(record: Record) -> None:
    """The agent died after COMMIT. CRIU, left alone, either let the tree run already or kills it."""
    for entry in record.entries:
        if entry["did"] == "criu":
            processes.wait_gone((entry["pid"], entry["start"]), time.monotonic() + undo.CRIU_END_S)
    if tree_runs(record):
        tidy_up(record)
    else:
        undo.roll_back(record)


def tidy_up(record: Record) -> None:
    """On a destination where the tree runs: undo only what it does not need to run."""
    undo.forget_backups(record)
    record.entries = [entry for entry in record.entries if entry["did"] not in STAYS]
    undo.roll_back(record)


def tree_runs(record: Record) -> bool:
    """Whether a task that the journal says was restored here is alive."""
    for entry in record.entries:
        if entry["did"] == "tree":
            return any(_younger(pid, entry["since"]) for pid in entry["pids"])
    return False


def _younger(pid: int, since: int) -> bool:
    try:
        return processes.identity(pid)[1] >= since and processes.state(pid) not in "ZX"
    except ProcessLookupError:
        return False


def note_problems(directory: Path, problems: list[str]) -> None:
    """Keep what an undo could not do beside the journal, for ``--recover``."""
    (directory / "problems").write_text("\n".join(problems) + "\n")


def main() -> int:
    """The guardian's life."""
    directory = Path(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, READY)
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    try:
        lock = journal.take_lock(directory, wait=True)
    except FileNotFoundError:
        return 0
    settle(directory)
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
