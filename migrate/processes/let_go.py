"""Whether tasks that CRIU has built run, when CRIU died before it could say so.

Until their last step, which is rt_sigreturn(2), CRIU's own code in them has every signal blocked, and there they
wait for CRIU, for ever if it dies. Those that it has let go past that it holds by ptrace(2), and the kernel lets
them go on when it dies: they run, and nobody may run a second copy.

Source: criu/pie/restorer.c restore_finish_stage(), criu/cr-restore.c restore_root_task(), kernel/ptrace.c
exit_ptrace().
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from migrate import limits
from migrate.processes import identity
from migrate.processes.watched import DEAD, STOPPED

#: What cannot be blocked: SIGKILL and SIGSTOP. Of the others the C library keeps two for itself, so that no program
#: that asks it for all of them has all.
_NEVER_BLOCKED = 1 << 8 | 1 << 18
_EVERY_SIGNAL = (1 << 64) - 1
_LOOK_S = 0.01


class _Thread(NamedTuple):
    state: str
    blocked: int

    @property
    def has_begun(self) -> bool:
        """Whether it has its own mask of signals, and so executes the program."""
        return self.blocked | _NEVER_BLOCKED != _EVERY_SIGNAL

    @property
    def waits(self) -> bool:
        """Whether it waits for CRIU, and for nothing that ends by itself."""
        return not self.has_begun and self.state in ("S", *STOPPED)


def any_runs(tasks: Iterable[identity.Identity]) -> bool:
    """Whether one of *tasks*, which a CRIU has built that is dead, executes the program, or is about to.

    One that has ended does not.
    """
    tasks, deadline = list(tasks), time.monotonic() + limits.BEGINS_S
    while True:
        threads = list(_threads(tasks))
        if any(one.has_begun for one in threads):
            return True
        if all(one.waits for one in threads):
            return False
        if time.monotonic() > deadline:
            return True
        time.sleep(_LOOK_S)


def _threads(tasks: Iterable[identity.Identity]) -> Iterator[_Thread]:
    """Those of *tasks* that are alive."""
    for task in tasks:
        if not identity.alive(task):
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for tid in os.listdir(f"/proc/{task[0]}/task"):  # noqa: PTH208
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    thread = _read(Path(f"/proc/{task[0]}/task/{tid}/status").read_bytes())
                    if thread.state not in DEAD:
                        yield thread


def _read(status: bytes) -> _Thread:
    words = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
    return _Thread(words[b"State"].split()[0].decode(), int(words[b"SigBlk"], 16))
