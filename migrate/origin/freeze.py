"""The last state in which the tree runs, and the step out of it: hold new connections off, freeze, look again."""

from __future__ import annotations

from typing import ClassVar

from migrate.criu import own_namespace
from migrate.errors import CriuError
from migrate.events import log
from migrate.origin import accept_queues, united
from migrate.origin.attempt import Attempt
from migrate.origin.frozen import FrozenTree
from migrate.origin.ready import Ready
from migrate.origin.stage import Stage
from migrate.origin.stages import Frozen
from migrate.origin.unowned import Watcher
from migrate.processes.chosen import stopped
from migrate.states import State
from tcpcp.criu import stages

#: How often a freeze is tried when connections slip into an accept queue.
FREEZES = 5
#: In so many of these, the first ones, programs of this host may connect until the tree is frozen: it may be the
#: tree itself. In the others somebody else has been too quick for us, who can be held off.
INSIDE = 3
_SLIPPED_IN = "a connection slipped in"


class Prepared(Stage):
    """All is ready on both hosts, and nothing touched.

    :param unowned: looks for connections that only the kernel has.
    """

    state: ClassVar[State] = State.CHECKED

    def __init__(self, ready: Ready, attempt: Attempt, unowned: Watcher) -> None:
        super().__init__(ready, attempt)
        self._unowned = unowned

    def _next(self) -> Frozen:
        """Hold new connections, let the accept queues drain, freeze; again if one slipped in."""
        ready, move = self.ready, self.ready.move
        ready.guardian.check()
        move.patience.begin_gap()
        ready.guardian.expect_end(move.patience.gap_until)
        attempt, lease = self.attempt, ready.packets.lease
        known, why = attempt.epolls_known, ""
        lease.let_inside(connect=True)
        for number in range(FREEZES):
            move.account.report.notes += ready.hold.prepare(self._tasks)
            listeners = self._drained()
            were_stopped = stopped(self._tasks())
            if number:
                move.machine.again()
                log.tell("retry", freeze=number + 1, why=why)
                attempt = Attempt(move, ready.images, ready.hold, epolls_known=known)
            going = attempt.freeze(ready.journal)
            tree = self._frozen(were_stopped)
            move.held.freeze.callback(tree.close)
            move.held.freeze.enter_context(move.alive.looking_at(tree))
            inside = self._hold_inside(listeners) and number + 1 < INSIDE
            why = self._again(listeners, attempt, tree)
            if not why:
                united.frozen(move.plan.runtime)
                return Frozen(ready, attempt, tree, going)
            known = known and why == _SLIPPED_IN
            # While the tree stands still: what it begins next shall not meet the filter.
            lease.let_inside(connect=inside)
            move.held.freeze.close()
        raise CriuError(
            "connections keep arriving in an accept queue that the process does not empty, or being closed with"
            " data that is still to be sent",
            hint="Try again when the server is less busy, or look whether it accepts at all.",
        )

    def _again(self, listeners: list[int], attempt: Attempt, tree: FrozenTree) -> str:
        """Why the tree has to go on once more; "" if it need not."""
        if stages.accept_queues(listeners) or not self._unowned.none_left():
            return _SLIPPED_IN
        return "" if attempt.may_dump(tree) else "an epoll watches what has another number now"

    def _frozen(self, were_stopped: frozenset[int]) -> FrozenTree:
        """The tree, which CRIU holds."""
        tasks = self.ready.move.subject.frozen()
        numbers = own_namespace.numbers(tasks[0][0], (pid for pid, _ in tasks))
        return FrozenTree(tasks, were_stopped, numbers)

    def _hold_inside(self, listeners: list[int]) -> bool:
        """The tree is frozen: hold what comes from this host, too.

        :return: it was not held until now, so that the tree waits for no answer that the filter keeps away.
        :raises CriuError: it was, and the tree waits for one.
        """
        lease = self.ready.packets.lease
        if lease.lets_inside:
            lease.let_inside(connect=False)
            return True
        if own := accept_queues.own_attempts(self._tasks(), listeners):
            raise CriuError(
                f"the process connects to its own listener at {', '.join(own)} all the time, and cannot be frozen"
                " without a connection that is only begun, or not accepted yet",
                hint="Have its workers, or what checks its health, pause for a moment, and try again.",
            )
        return False

    def _tasks(self) -> list[int]:
        return self.ready.move.subject.tasks()

    def _drained(self) -> list[int]:
        """Hold new connections off until none is left that no descriptor names; inodes of the listeners."""
        move, packets = self.ready.move, self.ready.packets
        tasks, until = self._tasks(), move.patience.until
        listeners = accept_queues.drain(packets.lease, tasks, until, packets.capture.syns, move.watch)
        self._unowned.wait_for_none(until)
        return listeners
