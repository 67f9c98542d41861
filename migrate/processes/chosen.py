"""The process that was asked for, by pidfd and start time: whoever has its number after it is another one."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections.abc import Callable
from types import TracebackType

from migrate import limits
from migrate.errors import Ended, Reason, Refused
from migrate.processes import identity
from tcpcp.criu import tree
from tcpcp.errors import KernelError

_Reading = Callable[[int], list[int]]


class Subject:
    """A process by its number *pid* as it is now; from here on it is this one or none. A context manager.

    :ivar start: when it started, see :func:`migrate.processes.identity.identity`.
    :ivar was_stopped: whether it was stopped by a signal when it was asked for.
    :raises Refused: there is none, or the number is that of a thread.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = _opened(pid)
        try:
            _, self.start = identity.identity(pid)
            state = identity.state(pid)
        except ProcessLookupError:
            os.close(self._pidfd)
            raise _none(pid) from None
        self.was_stopped = state == "T"
        self.was_dead = state in "ZX"

    def __enter__(self) -> Subject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._pidfd)

    def ended(self, *, within_s: float = 0.0) -> bool:
        """Whether it has ended, or does within *within_s*. A zombie has.

        Source: man pidfd_open(2): a pidfd is readable when the process terminates.
        """
        ready, _, _ = select.select([self._pidfd], [], [], within_s)
        return bool(ready)

    def require(self) -> None:
        """Make sure that it is there.

        :raises Ended: it has ended, whoever has its number now.
        """
        if self.ended():
            raise self._ended()

    def tasks(self) -> list[int]:
        """The PIDs of its tree, which runs: the root first. Any but the root may have ended meanwhile.

        :raises Ended: it has ended.
        """
        return self._read(tree.tasks_now)

    def frozen(self) -> list[identity.Identity]:
        """The tasks of its tree, which somebody keeps frozen: all of them, the root first.

        :raises Ended: what is frozen is not the process that was asked for, or a task was killed.
        """
        pids = self._read(tree.tasks)
        try:
            found = [identity.identity(pid) for pid in pids]
        except ProcessLookupError:
            raise self._ended() from None
        if found[0] != (self.pid, self.start):
            raise self._ended()
        return found

    def state(self) -> str:
        """The letter of its state, "" when it has ended; waits a moment for one that is just being let go."""
        deadline = time.monotonic() + limits.LET_GO_S
        while not self.ended():
            with contextlib.suppress(ProcessLookupError):
                state = identity.state(self.pid)
                if state not in "tT" or self.was_stopped or time.monotonic() > deadline:
                    return "" if self.ended() else state
            time.sleep(0.005)
        return ""

    def _read(self, tasks: _Reading) -> list[int]:
        try:
            found = tasks(self.pid)
        except KernelError as error:
            if error.errno != errno.ESRCH:
                raise
            raise self._ended() from None
        self.require()  # else what was read may be of another one
        return found

    def _ended(self) -> Ended:
        hint = "Look for its new PID with pgrep, and try again."
        return Ended(f"process {self.pid} has ended", hint=hint)


def stopped(pids: list[int]) -> frozenset[int]:
    """Those of *pids* that a signal has stopped; the tree runs, so some may have ended."""
    found = set()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            if identity.state(pid) == "T":
                found.add(pid)
    return frozenset(found)


def _opened(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise _none(pid) from None
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
        text, remedy = f"{pid} is a thread, no process", f"Its process is Tgid in /proc/{pid}/status."
        raise Refused([Reason("a-thread", "origin", text, remedy)]) from None


def _none(pid: int) -> Refused:
    text, remedy = f"there is no process {pid}", "Look for the PID with pgrep or ss -tlnp."
    return Refused([Reason("no-such-process", "origin", text, remedy)])
