"""The frozen tree on the origin, which is looked at again before it is given away.

Whoever may signal the process may do so while it is frozen: its owner, a supervisor, the kernel that is out of
memory. A task that was killed must not come to life again on the destination, and a signal that came after CRIU
had written those before must not be lost: then the tree goes on here, and gets it.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from migrate.criu import log
from migrate.errors import CriuError, Ended, Signalled
from migrate.machine import Machine
from migrate.pb.session_pb2 import TaskState
from migrate.processes import identity, pending
from migrate.processes.own_numbers import Numbers
from migrate.processes.watched import DEAD, Watched
from tcpcp.criu import tree
from tcpcp.errors import TcpcpError


class FrozenTree:
    """The tasks of a tree that somebody keeps frozen, as they are before the dump.

    :param tasks: all of them, the root first.
    :param stopped: PIDs of those that had been stopped before.
    :param numbers: their own and their threads', as they see them; None: as we do.
    """

    def __init__(
        self, tasks: list[identity.Identity], stopped: frozenset[int], numbers: Numbers | None = None
    ) -> None:
        self.tasks, self.stopped, self.numbers = tasks, stopped, numbers or Numbers()
        self._alive = [one for one in tasks if identity.alive(one)]
        self._watched = Watched(self._alive)
        self._pending = pending.read(pid for pid, _ in self._alive)

    @property
    def running(self) -> list[identity.Identity]:
        """Those that live, and ran before the freeze."""
        return [one for one in self._alive if one[0] not in self.stopped and identity.alive(one)]

    def states(self) -> list[TaskState]:
        """Each task, by its own number, and how it was before the freeze: dead (``Z``), stopped (``T``), or neither
        (``S``)."""
        alive = {pid for pid, _ in self._alive}
        letters = {pid: "T" if pid in self.stopped else "S" for pid in alive}
        inside = self.numbers.inside
        return [TaskState(pid=inside(pid), state=letters.get(pid, DEAD[0])) for pid, _ in self.tasks]

    def require(self) -> None:
        """Make sure that no task has been killed.

        :raises Ended: one has.
        """
        if dead := self._watched.ended():
            raise Ended(
                f"process {dead[0]} was killed while it was frozen",
                hint="Look for who killed it: its owner, or the kernel for want of memory (dmesg).",
            )

    def look(self, images: Path) -> None:
        """Make sure that what was dumped is still what is here.

        :param images: where CRIU wrote its images.
        :raises Ended: a task has been killed.
        :raises Signalled: one was sent a signal that the destination would not know of.
        """
        sent = self._sent(images)
        self.require()
        if sent:
            raise _signalled(*sent[0])

    def _sent(self, images: Path) -> list[tuple[int, int]]:
        """Each task that was sent a signal since it was frozen that the destination does not know of, and which."""
        now = pending.read(pid for pid, _ in self._alive)
        return [
            (place.pid, number)
            for place, number, blocked in pending.new(self._pending, now)
            if pending.matters(place.pid, number, stopped=place.pid in self.stopped, blocked=blocked)
            and number not in _of_timers(images, place)
        ]

    def too_late(self, images: Path, there: str, *, doubt: bool = False) -> list[str]:
        """What somebody has sent to the copy here since it was given away, or done to it: sentences for a report.

        :param images: as for :meth:`look`. :param there: the host that it was given to.
        :param doubt: nobody knows where the process runs.
        """
        sent = {(pid, pending.name(number)) for pid, number in self._sent(images)}
        sent |= {(pid, "SIGKILL") for pid in self._watched.ended()}
        lost = f"which the one that runs on {there} does not get: send it there if it is still wanted"
        if doubt:
            lost = f"which it does not get if it runs on {there}: send it there then, if it is still wanted"
        return [
            f"process {pid} was sent {name} here when it had been given away, {lost}"
            for pid, name in sorted(sent)
        ]

    @contextlib.contextmanager
    def dumped(self) -> Iterator[None]:
        """CRIU dumps it meanwhile.

        :raises Signalled: it could not, or could not have, for a task was interrupted, as SIGSTOP and SIGCONT do,
            which get to what CRIU does in it. A SIGSTOP that waits stops it when CRIU lets go; one that CRIU has
            lost is sent again, if it says that it was one.
        """
        if waiting := self._interrupting():
            raise _signalled(*waiting[0])
        try:
            yield
        except CriuError as error:
            sent = log.interrupted(error.problem.details)
            which = {self.numbers.here(tid): signals for tid, signals in sent.items()}
            ours = [(one, which[tid]) for one in self._alive for tid in _threads(one) if tid in which]
            for one, signals in ours:
                if signals == {signal.SIGSTOP}:
                    identity.send(one, signal.SIGSTOP)
            if ours:
                (pid, _), signals = ours[0]
                is_known = signals == {signal.SIGSTOP}
                raise (_signalled(pid, signal.SIGSTOP) if is_known else _interrupted(pid)) from error
            raise

    def _interrupting(self) -> list[tuple[int, int]]:
        """The processes for which a signal waits that would interrupt CRIU's work in them, and which."""
        waiting = pending.read(pid for pid, _ in self._alive)
        return [
            (place.pid, number)
            for place, signals in waiting.items()
            for number in sorted(signals.signals & log.STOP_OR_CONT)
            if number == signal.SIGCONT or place.pid not in self.stopped
        ]

    def close(self) -> None:
        """Watch no more."""
        self._watched.close()


class NoneKilled:
    """For a watch: looks whether a task of the tree was killed, as long as one is frozen.

    :param machine: says whether a step is left.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._trees: list[FrozenTree] = []

    @contextlib.contextmanager
    def looking_at(self, tree: FrozenTree) -> Iterator[None]:
        """*tree* is frozen meanwhile."""
        self._trees.append(tree)
        try:
            yield
        finally:
            self._trees.remove(tree)

    def __call__(self) -> None:
        """Return while all live.

        :raises Ended: one has been killed.
        """
        if self._machine.step is not None:
            for tree in self._trees:
                tree.require()


def _signalled(pid: int, number: int) -> Signalled:
    hint = "It gets it here. If it goes on after that, try again."
    return Signalled(f"process {pid} was sent {pending.name(number)} while it was frozen", hint=hint)


def _interrupted(pid: int) -> Signalled:
    """CRIU says that it was, and not by what; a signal may have been that, or an error of the program's memory."""
    hint = (
        "CRIU does not say by what; SIGSTOP and SIGCONT do that. The process goes on here: if it was sent a"
        " SIGSTOP, that is lost, so send it now; else try again."
    )
    return Signalled(f"process {pid} was interrupted while it was frozen, as CRIU worked in it", hint=hint)


def _threads(task: identity.Identity) -> list[int]:
    with contextlib.suppress(TcpcpError):
        return tree.threads(task[0])
    return []


def _of_timers(images: Path, place: pending.Place) -> frozenset[int]:
    """The signals of timers that come on the destination too, there where they wait here."""
    try:
        core = images / f"core-{identity.innermost(place.pid)}.img"
        expired = frozenset() if place.tid else pending.of_expired_timers(core)
        return pending.of_timers(core) | expired
    except OSError:
        return frozenset()
