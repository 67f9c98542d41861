"""Signals that a task was sent and has not taken yet: which came since it was dumped, and which of them matter.

A frozen task takes no signal. What came before CRIU wrote it is in the images; what comes afterwards is not,
and would be lost with the origin's copy.

Source: man proc(5) for SigPnd, ShdPnd, SigBlk, SigIgn and SigCgt; kernel/signal.c sig_ignored(): a traced task is
sent even what it ignores, and any task what it blocks, for it may take that by sigwait(3) or signalfd(2).
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

#: What stops a process. SIGCONT takes back those of them that wait.
STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
#: What the driver itself sends to threads to keep the tree still; what others send waits for the process.
_OURS = frozenset({signal.SIGSTOP})
#: Without a handler nothing comes of these; of SIGCONT only that what is stopped runs.
_IGNORED_BY_DEFAULT = frozenset({signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT})
#: Of setitimer(2), by CRIU's names.
_TIMERS = {"real": signal.SIGALRM, "virt": signal.SIGVTALRM, "prof": signal.SIGPROF}
#: Of /proc/PID/status, as :class:`Signals` has them.
_MASKS = (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn", b"SigCgt")


class Place(NamedTuple):
    """Where a signal waits: for the thread *tid* of the process *pid*, or with 0 for any of its threads."""

    pid: int
    tid: int


class Signals(NamedTuple):
    """What /proc/PID/status says of signals, as sets of numbers."""

    own: frozenset[int]
    shared: frozenset[int]
    blocked: frozenset[int]
    ignored: frozenset[int]
    caught: frozenset[int]


class Waiting(NamedTuple):
    """What waits at a place, and what is blocked there: for a process, what its first thread blocks."""

    signals: frozenset[int]
    blocked: frozenset[int] = frozenset()


def parse(status: bytes) -> Signals:
    """The signals in the content of /proc/PID/status. :raises ValueError: they are not there."""
    masks = {}
    for line in status.split(b"\n"):
        name, _, value = line.partition(b":")
        if name in _MASKS:
            masks[name] = frozenset(_numbers(int(value, 16)))
    try:
        return Signals(*(masks[one] for one in _MASKS))
    except KeyError as error:
        raise ValueError(f"/proc/PID/status without {error.args[0].decode()}") from None


def read(pids: Iterable[int]) -> dict[Place, Waiting]:
    """The signals that wait for each thread of *pids*; those of a process that is gone are not in it."""
    found = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                signals = parse(Path(f"/proc/{pid}/task/{name}/status").read_bytes())
                found[Place(pid, int(name))] = Waiting(signals.own, signals.blocked)
                if int(name) == pid:
                    found[Place(pid, 0)] = Waiting(signals.shared, signals.blocked)
    return found


def new(before: Mapping[Place, Waiting], now: Mapping[Place, Waiting]) -> Iterator[tuple[Place, int, bool]]:
    """(place, signal, whether it was blocked before) of what came in between, the driver's own apart."""
    for place, waiting in now.items():
        known = before.get(place, Waiting(frozenset()))
        ours = _OURS if place.tid else frozenset()
        for number in sorted(waiting.signals - known.signals - ours):
            yield place, number, number in known.blocked


def matters(pid: int, number: int, *, stopped: bool, blocked: bool = False) -> bool:
    """Whether the process would do anything on that signal: it is not ignored, or is taken by who blocks it.

    :param blocked: before the dump, in which CRIU blocks all.
    :param stopped: it had been stopped before the freeze, so that SIGCONT lets it run, even if it is ignored, and
        takes back what would stop it once more.
    """
    if stopped and number in STOPS:
        return False
    try:
        signals = parse(Path(f"/proc/{pid}/status").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return True
    if blocked or (number == signal.SIGCONT and stopped):
        return True
    return number not in signals.ignored and (number in signals.caught or number not in _IGNORED_BY_DEFAULT)


def of_timers(core: Path) -> frozenset[int]:
    """The signals of the timers in one of CRIU's ``core`` images: they expire again on the destination."""
    timers = _of_process(core).get("timers", {})
    found = {one["si_signo"] for one in timers.get("posix", [])}
    found |= {int(number) for name, number in _TIMERS.items() if any(timers.get(name, {}).values())}
    return frozenset(found)


def of_expired_timers(core: Path) -> frozenset[int]:
    """Those of setitimer(2) that wait for the process in such an image, which the destination gets: of a timer that
    expired between the freeze and the dump."""
    queue = _of_process(core).get("signals_s", {}).get("signals", [])
    found = {int.from_bytes(base64.b64decode(one["siginfo"])[:4], "little") for one in queue}
    return frozenset(found.intersection(_TIMERS.values()))


def _of_process(core: Path) -> dict[str, Any]:
    """What such an image has of the process as a whole."""
    from pycriu import images

    with core.open("rb") as file:
        return dict(images.load(file)["entries"][0].get("tc", {}))


def name(number: int) -> str:
    """Its name, e.g. ``SIGTERM``, ``SIGRTMIN+3``."""
    if number in set(signal.Signals):
        return signal.Signals(number).name
    return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else f"signal {number}"


def _numbers(mask: int) -> Iterator[int]:
    return (number for number in range(1, 65) if mask >> (number - 1) & 1)
