"""The SIGSTOP that waits for each task of a frozen tree, should somebody take away what else keeps it still.

It waits for threads (tgkill(2)). What others send by kill(2) waits for the process as a whole, so a SIGSTOP of
theirs is seen beside ours. SIGCONT takes back both: theirs, like other stop signals, is sent once more.

Source: man signal(7), "Sending a signal"; kernel/signal.c prepare_signal(): SIGCONT removes what stops from the
queues of the process and of all its threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

from migrate.processes import identity, pending
from migrate.processes.identity import Identity

#: Number of tgkill(2), for which not every C library has a function. Source: man syscalls(2).
_NUMBERS = {"x86_64": 234, "aarch64": 131, "riscv64": 131, "loongarch64": 131, "s390x": 241, "ppc64le": 250}
_TGKILL = _NUMBERS.get(os.uname().machine, -1)

_libc = ctypes.CDLL(None, use_errno=True)


def hold(task: Identity) -> None:
    """Have a SIGSTOP wait for each thread of *task*, or stop it; nothing for one that is gone.

    Somebody traces it: a tracer that does not wait for it keeps its numbers from being given out again.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if identity.alive(task):
            for name in os.listdir(f"/proc/{task[0]}/task"):  # noqa: PTH208
                _libc.syscall(_TGKILL, task[0], int(name), int(signal.SIGSTOP))


def take_back(task: Identity) -> bool:
    """Let *task* go on, unless others want it stopped: then it stops as it would have; False when it is gone."""
    theirs = _of_others(task[0])
    if not identity.send(task, signal.SIGCONT):
        return False
    for number in theirs:
        identity.send(task, signal.Signals(number))
    return True


def _of_others(pid: int) -> list[int]:
    """The stop signals that wait for the process as a whole."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        signals = pending.parse(Path(f"/proc/{pid}/status").read_bytes())
        return sorted(signals.shared & pending.STOPS)
    return []
