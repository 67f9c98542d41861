"""The states from the freeze until all of the tree is on its way: frozen, dumped, isolated, streamed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import ClassVar, Literal

from migrate import threads
from migrate.criu.worker import Stage as CriuStage
from migrate.inventory import plain_options, translated, untold
from migrate.link import message_checks
from migrate.origin import connections, contained, look_again
from migrate.origin.attempt import Attempt
from migrate.origin.frozen import FrozenTree
from migrate.origin.handover import Restored
from migrate.origin.move import Move
from migrate.origin.patience import BUILDING
from migrate.origin.ready import Ready
from migrate.origin.stage import Found, Stage, Still
from migrate.pb import session_pb2 as pb
from migrate.pb.manifest_pb2 import Manifest
from migrate.processes import leeway, second_line, surroundings, waits
from migrate.recovery import entries
from migrate.report.timeline import Span
from migrate.states import State
from tcpcp.criu.stages import Extract


class Frozen(Stage):
    """CRIU holds every task of the tree.

    :param going: its dump, which has come to where they are frozen.
    """

    state: ClassVar[State] = State.FROZEN

    def __init__(
        self, ready: Ready, attempt: Attempt, tree: FrozenTree, going: Generator[CriuStage, bool | None, None]
    ) -> None:
        super().__init__(ready, attempt)
        self._tree, self._going = tree, going

    def _next(self) -> Dumped:
        """Have CRIU write the images, sent as they grow; then make the freeze outlive CRIU.

        Meanwhile look at the connections, on another processor if there is one.
        """
        ready, tasks = self.ready, self._tree.tasks
        again = look_again.at(
            self._tree, ready.move.plan, ready.move.session.files.known, ready.move.request.along
        )
        waiting = waits.read(pid for pid, _ in tasks)
        lent = self._lend_limits()
        ready.images.sender.start()
        beside = self.attempt.beside
        looked = threads.submit(beside, _look_at, self._tree, ready.move, again.options, waiting)
        waiters = threads.submit(beside, look_again.awaited, again, self._tree)
        try:
            with self._tree.dumped():
                self.attempt.dump(self._going)
        finally:  # whatever becomes of the dump, what they borrow is given back when they are done
            looked.exception()
            waiters.exception()
        found, new = looked.result(), [*again.obstacles, *waiters.result()]
        ready.move.account.foreseen.extend(look_again.notes(new, ready.move.plan.process))
        leeway.as_before(found.surroundings, lent)
        stopping = self._tree.running
        ready.journal.did(entries.Stop(tuple(stopping)))
        for one in stopping:
            # Pending while CRIU holds the task: should CRIU die, it stops instead of running on.
            second_line.hold(one)
        if waiting:
            ready.journal.did(entries.EndedCalls(tuple(tasks), tuple(waiting)))
        ready.hold.keep(tasks, stopping, self.attempt.worker)
        ready.move.session.files.settle(again, ready.images.directory)
        plan = ready.move.plan
        contained.pack(plan.written, plan.container, again.mapped, ready.images.directory)
        return Dumped(ready, self.attempt, found)

    def _lend_limits(self) -> list[leeway.Narrow]:
        """Raise those that leave CRIU too little in a task. They are as before when it runs, on either host."""
        lent = [one for pid, _ in self._tree.tasks for one in leeway.narrow(pid) if one.can_be_raised]
        started = dict(self._tree.tasks)
        for one in lent:
            self.ready.journal.did(entries.Limit(one.pid, started[one.pid], one.kind, one.soft, one.needed))
            leeway.raised(one)
        return lent


def _look_at(
    tree: FrozenTree, move: Move, options: Sequence[plain_options.Held], waiting: Sequence[waits.Wait]
) -> Found:
    """Look at the connections, and at what else is not in CRIU's images."""
    extract = Extract.collect(pid for pid, _ in tree.tasks)
    move.held.sockets.callback(extract.close)
    extract.prepare()
    around = surroundings.read(pid for pid, _ in tree.tasks)
    translated.require_none(extract.flows, move.plan.process.sockets)
    untold.require_none(extract.connections, extract.zerocopy())
    options = [*options, *_of_tcp(extract)]
    return Found(tree, extract, connections.holders(extract.held, tree.numbers), around, options, waiting)


def _of_tcp(extract: Extract) -> list[plain_options.Held]:
    held = {one.inode: one for one in extract.held}
    unconnected = [held[one.inode] for one in (*extract.listeners, *extract.unconnected)]
    return plain_options.of_tcp(unconnected, ((held[i], sock) for i, sock in extract.connections.items()))


class Dumped(Still):
    """The images are written, and most of them sent."""

    state: ClassVar[State] = State.DUMPED

    def _next(self) -> Isolated:
        """Cut all connections off in one batch and read them."""
        ready, extract = self.ready, self._found.extract
        move, packets = ready.move, ready.packets
        ready.journal.did(entries.Repair(tuple(self._found.tree.tasks), _all_or(extract.reusing())))
        packets.capture.everything()
        packets.capture.only(extract.flows, extract.listening)
        move.account.timeline.start(Span.ISOLATED)
        packets.lease.hold(extract.uncovered(), extract.listening)
        for icis in extract.get():
            # They are sent, and the destination is at work on them, while we read others.
            connections.send(icis, self._found.held, move)
            move.account.report.sent.connections += len(icis)
            move.watch()
        return Isolated(ready, self.attempt, self._found)


def _all_or(inodes: list[int] | Literal[True]) -> tuple[int, ...] | Literal[True]:
    return True if inodes is True else tuple(inodes)


class Isolated(Still):
    """The connections are in repair mode and cut off; what their peers send is caught."""

    state: ClassVar[State] = State.ISOLATED

    def _next(self) -> Streamed:
        """Send what is left of the images."""
        move, sender = self.ready.move, self.ready.images.sender
        manifest = sender.finish(move.migration_id)
        move.link.flush(timeout_s=move.timeout_s)
        move.account.report.sent.image_bytes = sender.sent_bytes
        move.account.observer.progress(sender.sent_bytes, sender.sent_bytes)
        return Streamed(self.ready, self.attempt, self._found, manifest)


def _restore_message(
    manifest: Manifest, found: Found, tasks: list[pb.TaskState], most_s: float
) -> pb.Restore:
    """What the destination needs beside the images and the connections.

    :param tasks: those that were frozen, the root first.
    :param most_s: how long it may take to build the tree.
    """
    extract, said = found.extract, frozenset(found.extract.connections)
    without = [one for inode, one in found.held.items() if inode not in said]
    sockets = (one.held for one in found.options if one.held.inode not in found.held)
    others = connections.holders(sockets, found.tree.numbers)
    return pb.Restore(
        most_ms=int(most_s * 1000),
        manifest=manifest,
        tasks=tasks,
        closed=extract.closed,
        connections=len(said),
        sockets=[*without, *others.values()],
        others=[
            pb.SocketOptions(inode=one.held.inode, options=one.numbers, values=one.values)
            for one in found.options
        ],
        listeners=[
            pb.SocketOptions(inode=one.inode, options=one.options, congestion=one.congestion)
            for one in (*extract.listeners, *extract.unconnected)
        ],
    )


class Streamed(Still):
    """All images have left.

    :param manifest: says which.
    """

    state: ClassVar[State] = State.STREAMED

    def __init__(self, ready: Ready, attempt: Attempt, found: Found, manifest: Manifest) -> None:
        super().__init__(ready, attempt, found)
        self._manifest = manifest

    def _next(self) -> Restored:
        """Have the destination build the tree; meanwhile it gets what arrives here for the connections."""
        move, found = self.ready.move, self._found
        seen = move.seen
        seen.before = found.tree.states()
        most_s = move.patience.left_s * BUILDING
        message = _restore_message(self._manifest, found, seen.before, most_s)
        numbers = found.tree.numbers
        message.surroundings.extend(numbers.surroundings(found.surroundings))
        message.ended_calls.extend(
            pb.EndedCall(tid=numbers.inside(one.tid), number=one.number) for one in found.waits
        )
        message.renamed.update(move.session.files.renamed)
        move.account.report.notes += move.link.unheard(message)
        move.link.send(message)
        self.ready.packets.forwarder.start()
        restored = move.link.expect(pb.Restored, timeout_s=move.timeout_s)
        move.account.report.destination_pid = message_checks.destination_pid(restored, move.plan.prepare)
        move.account.timeline.hear(restored.phases, move.link.clocks.offset)
        seen.notes = list(restored.notes)
        return Restored(self.ready, self.attempt, found)
