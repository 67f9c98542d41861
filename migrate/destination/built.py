"""The tree that CRIU has built on the destination: watched while it waits to run, and looked at when it does.

CRIU waits for its tasks to take the last steps together, and does not notice that one of them is dead or stopped.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from migrate import limits
from migrate.errors import CriuError
from migrate.pb.session_pb2 import TaskState
from migrate.processes import identity, let_go
from migrate.processes.watched import DEAD, STOPPED, Watched
from tcpcp.criu import stages
from tcpcp.kernel import diag
from tcpcp.record.ici import Endpoint, State

_KILLED = "Look for who killed it: somebody who took it for a copy, or the kernel for want of memory (dmesg)."


class Built:
    """Its tasks, none of which has run yet.

    :param tasks: how each was before the freeze, on the origin, the root first.
    :param numbers: PID on the origin -> PID here.
    :raises CriuError: one of them is not there.
    """

    def __init__(self, tasks: Sequence[TaskState], numbers: Mapping[int, int]) -> None:
        self._before = {one.pid: one.state for one in tasks}
        self._here = {numbers[pid]: pid for pid in self._before if pid in numbers}
        living = {pid for pid, before in self._before.items() if before not in DEAD}
        found = []
        for pid in living:
            try:
                found.append(identity.identity(numbers[pid]))
            except (KeyError, ProcessLookupError):
                raise _failed(
                    f"CRIU did not build process {pid}",
                    "Its log is kept there, beside that of the migration.",
                ) from None
        self._tasks = found
        self._watched = Watched(found)

    def require(self) -> None:
        """Make sure that none has ended. :raises CriuError: one has."""
        self._require_none(self._watched.ended())

    def require_alive(self) -> None:
        """As :meth:`require` while CRIU traces their threads: until it reaps them, which it may never do, the
        pidfd of a process that was killed says nothing (kernel/pid.c, pidfd_poll(): its threads are there still).

        :raises CriuError: one has ended.
        """
        self.require()
        self._require_none([pid for pid, state in self._watched.states().items() if state in DEAD])

    def _require_none(self, ended: Sequence[int]) -> None:
        if ended:
            raise _failed(f"process {ended[0]} of the tree that was built has ended before it ran", _KILLED)

    def require_whole(self) -> None:
        """As :meth:`require`, and that none was stopped: it would not take the last steps.

        :raises CriuError: one has ended, or was stopped.
        """
        self.require()
        for pid, state in self._watched.states().items():
            if state in ("", *DEAD, *STOPPED):
                text = f"process {pid} of the tree that was built was stopped by a signal before it ran"
                raise _failed(text, "Look for who sent it, and try again.")

    def any_runs(self) -> bool:
        """Whether one of them runs, when CRIU is dead; see :func:`migrate.processes.let_go.any_runs`."""
        return let_go.any_runs(self._tasks)

    def gone(self) -> bool:
        """Whether none of them is left."""
        return self._watched.all_ended()

    def seen(self) -> list[TaskState]:
        """The state of each once all of them run."""
        deadline = time.monotonic() + limits.RUNS_S
        while self._starting(self._watched.states()) and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.now()

    def now(self) -> list[TaskState]:
        """The state of each, the root first; "" of those that have ended."""
        states = self._watched.states()
        by_origin = {self._here[pid]: state for pid, state in states.items()}
        return [TaskState(pid=pid, state=by_origin.get(pid, "")) for pid in self._before]

    def _starting(self, states: Mapping[int, str]) -> bool:
        """Whether CRIU has not let one go yet."""
        return any(
            state == "t" or (state in STOPPED and self._before[self._here[pid]] not in STOPPED)
            for pid, state in states.items()
            if state
        )


def free(numbers: Iterable[int]) -> None:
    """Make sure that nobody has got one of *numbers* since the check.

    :raises CriuError: somebody has.
    """
    for number in numbers:
        status = Path(f"/proc/{number}/status")
        if status.exists():
            try:
                name = status.read_bytes().split(b"\n", 1)[0].partition(b":\t")[2].decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            text = (
                f"PID {number}, which a task or thread of the tree has, was taken by {name} since the check"
            )
            raise _failed(text, "Try again: if it is still in use, the tree gets a PID namespace of its own.")


def not_listening(listening: Collection[Endpoint]) -> list[str]:
    """Sentences: where of *listening* nobody listens now."""
    if not listening:
        return []
    entries = diag.tcp(states=1 << State.LISTEN)
    found = {where for entry in entries for where in stages.bound(entry)}
    return [f"nothing listens on {where} on the destination" for where in listening if where not in found]


def _failed(text: str, hint: str) -> CriuError:
    return CriuError(text, hint=hint)
