"""Signals that a task was sent and has not taken yet: which came since it was dumped, and which of them matter.

A frozen task takes no signal. What came before CRIU wrote it is in the images; what comes afterwards is not,
and would be lost with the origin's copy.

Source: man proc(5) for SigPnd, ShdPnd, SigIgn and SigCgt; kernel/signal.c sig_ignored(): a traced task is sent
even what it ignores.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

#: What the driver itself sends to keep the tree still.
_OURS = frozenset({signal.SIGSTOP})
#: Without a handler nothing comes of these; of SIGCONT only that what is stopped runs.
_IGNORED_BY_DEFAULT = frozenset({signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT})


class Place(NamedTuple):
    """Where a signal waits: for the thread *tid* of the process *pid*, or with 0 for any of its threads."""

    pid: int
    tid: int


class Signals(NamedTuple):
    """What /proc/PID/status says of signals, as sets of numbers."""

    own: frozenset[int]
    shared: frozenset[int]
    ignored: frozenset[int]
    caught: frozenset[int]


def parse(status: bytes) -> Signals:
    """The signals in the content of /proc/PID/status. :raises ValueError: they are not there."""
    masks = {}
    for line in status.split(b"\n"):
        name, _, value = line.partition(b":")
        if name in (b"SigPnd", b"ShdPnd", b"SigIgn", b"SigCgt"):
            masks[name] = frozenset(_numbers(int(value, 16)))
    try:
        return Signals(masks[b"SigPnd"], masks[b"ShdPnd"], masks[b"SigIgn"], masks[b"SigCgt"])
    except KeyError as error:
        raise ValueError(f"/proc/PID/status without {error.args[0].decode()}") from None


def read(pids: Iterable[int]) -> dict[Place, frozenset[int]]:
    """The signals that wait for each thread of *pids*; those of a process that is gone are not in it."""
    found = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                signals = parse(Path(f"/proc/{pid}/task/{name}/status").read_bytes())
                found[Place(pid, int(name))] = signals.own
                found[Place(pid, 0)] = signals.shared
    return found


def new(
    before: Mapping[Place, frozenset[int]], now: Mapping[Place, frozenset[int]]
) -> Iterator[tuple[int, int]]:
    """(pid, signal) of what came in between, the driver's own apart."""
    for place, waiting in now.items():
        for number in sorted(waiting - before.get(place, frozenset()) - _OURS):
            yield place.pid, number


def matters(pid: int, number: int, *, stopped: bool) -> bool:
    """Whether the process would do anything on that signal: it is not ignored.

    :param stopped: it had been stopped before the freeze, so that SIGCONT lets it run, even if it is ignored.
    """
    try:
        signals = parse(Path(f"/proc/{pid}/status").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return True
    if number == signal.SIGCONT and stopped:
        return True
    return number not in signals.ignored and (number in signals.caught or number not in _IGNORED_BY_DEFAULT)


def of_timers(core: Path) -> frozenset[int]:
    """The signals of the timers in one of CRIU's ``core`` images: they expire again on the destination."""
    from pycriu import images

    with core.open("rb") as file:
        timers = images.load(file)["entries"][0].get("tc", {}).get("timers", {})
    found = {one["si_signo"] for one in timers.get("posix", [])}
    kinds = (("real", signal.SIGALRM), ("virt", signal.SIGVTALRM), ("prof", signal.SIGPROF))
    found |= {int(number) for name, number in kinds if any(timers.get(name, {}).values())}
    return frozenset(found)


def name(number: int) -> str:
    """Its name, e.g. ``SIGTERM``, ``SIGRTMIN+3``."""
    if number in set(signal.Signals):
        return signal.Signals(number).name
    return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else f"signal {number}"


def _numbers(mask: int) -> Iterator[int]:
    return (number for number in range(1, 65) if mask >> (number - 1) & 1)
