"""Processes by number and start time, so that a number that was given out again is never mistaken."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from migrate import limits
from migrate.processes.stat import Stat, parse, pids

_LOOK_S = 0.001

#: A process: its number and its start, in clock ticks since boot (field 22 of /proc/PID/stat).
Identity = tuple[int, int]


def identity(pid: int) -> Identity:
    """The process *pid* as it is now.

    :raises ProcessLookupError: there is none.
    """
    return pid, _stat(pid).starttime


def innermost(pid: int) -> int:
    """The number of *pid* in its own PID namespace.

    :raises ProcessLookupError: there is none.
    """
    try:
        data = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None
    return innermost_in(data)


def innermost_in(status: bytes) -> int:
    """The same from the content of /proc/PID/status; in the name there may be any bytes but line feeds.

    :raises ValueError: it is not there.
    """
    for line in status.split(b"\n"):
        if line.startswith(b"NSpid:") and (numbers := line.split()[1:]):
            return int(numbers[-1])
    raise ValueError("/proc/PID/status without NSpid")


def state(pid: int) -> str:
    """The letter of its state: R, S, D, T, t, Z, ...

    :raises ProcessLookupError: there is none.
    """
    return _stat(pid).state


def alive(process: Identity) -> bool:
    """Whether it still runs (a zombie does not)."""
    try:
        now = _stat(process[0])
    except ProcessLookupError:
        return False
    return now.starttime == process[1] and now.state not in "ZX"


def send(process: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone."""
    try:
        handle = os.pidfd_open(process[0])
    except ProcessLookupError:
        return False
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def end(processes: Iterable[Identity], *, timeout_s: float = limits.KILLED_S) -> list[Identity]:
    """Kill them and wait until they are gone; the ones that would not go are returned."""
    return not_gone(kill(processes), timeout_s=timeout_s)


def kill(processes: Iterable[Identity]) -> list[Identity]:
    """Kill them; return those that were there to be killed."""
    return [process for process in processes if send(process, signal.SIGKILL)]


def not_gone(processes: Iterable[Identity], *, timeout_s: float = limits.KILLED_S) -> list[Identity]:
    """Wait until they are gone; the ones that would not go are returned.

    A dead thread that is traced stays until its tracer lets go, and its process with it.
    """
    deadline = time.monotonic() + timeout_s
    return [process for process in processes if not wait_gone(process, deadline)]


def wait_gone(process: Identity, deadline: float) -> bool:
    """Wait until it has ended, or until *deadline* (of time.monotonic); whether it has."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(process[0])
        try:
            if alive(process):
                # Not select(2), which knows no number above 1023.
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(1000 * max(0.0, deadline - time.monotonic()))
        finally:
            os.close(handle)
    return not alive(process)


def with_environment(word: str) -> list[Identity]:
    """Processes that were started with *word* (``NAME=VALUE``) in their environment."""
    found, deadline = [], time.monotonic() + limits.EXEC_S
    for pid in pids():
        # Gone meanwhile, or a process that even root may not look at.
        with contextlib.suppress(OSError):
            if word.encode() in _environment(pid, deadline).split(b"\0"):
                found.append(identity(pid))
    return found


def _environment(pid: int, deadline: float) -> bytes:
    """That of *pid*, also if it is within execve(2) just now and has none; not waited for after *deadline*."""
    path = Path(f"/proc/{pid}/environ")
    while not (got := path.read_bytes()) and time.monotonic() < deadline:
        one = _stat(pid)
        if one.env_end or one.kernel_thread or one.state in "ZX":
            return path.read_bytes()
        time.sleep(_LOOK_S)
    return got


def _stat(pid: int) -> Stat:
    try:
        # A name is bytes: a long one may have been cut within a character.
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None
    return parse(text)
