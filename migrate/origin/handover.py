"""The states from the copy that stands on the destination to the end: the addresses go there, then the process."""

from __future__ import annotations

from typing import ClassVar

from migrate import switch
from migrate.errors import MigrateError
from migrate.link import message_checks
from migrate.origin.stage import Stage, Still
from migrate.pb import session_pb2 as pb
from migrate.processes import identity
from migrate.recovery import entries, records, undo
from migrate.report.timeline import Span
from migrate.states import State


class Restored(Still):
    """A copy stands on the destination and has run no instruction."""

    state: ClassVar[State] = State.RESTORED

    def _next(self) -> Switched:
        """Withdraw here, then have the destination answer: never both."""
        ready, link = self.ready, self.ready.move.link
        switch.tell(ready.switch, self._found.extract.flows)
        ready.journal.did(entries.Switch(ready.switch.details()))
        ready.switch.switch()
        link.send(pb.Switch())
        ready.switch.verify()  # a second look, while the destination is at work
        link.expect(pb.Switched, timeout_s=ready.move.timeout_s)
        return Switched(ready, self.attempt, self._found)


class Switched(Still):
    """The destination has the addresses, and does not answer yet."""

    state: ClassVar[State] = State.SWITCHED

    def _next(self) -> Committed:
        """Give the process away, and with it all that has arrived for it here up to now."""
        ready, move = self.ready, self.ready.move
        ready.packets.forwarder.catch_up()
        move.patience.check()
        ready.guardian.check()
        self._found.tree.look(ready.images.directory)
        ready.hold.check()
        ready.packets.lease.keep()
        move.watch.end()
        pid = move.account.report.destination_pid
        tree, images = self._found.tree, ready.images.directory
        ready.ending.given_away(lambda doubt: tree.too_late(images, move.request.host, doubt=doubt))
        ready.journal.state(State.COMMITTED.value, destination_pid=pid)
        move.machine.give_away()
        try:
            move.link.send(pb.Commit())
        except MigrateError:  # the link was lost before: surely nothing was sent
            move.machine.take_back()
            ready.journal.state(State.SWITCHED.value)
            raise
        return Committed(ready, self.attempt, self._found)


class Committed(Still):
    """Given away: the copy here never runs again by itself."""

    state: ClassVar[State] = State.COMMITTED

    def _next(self) -> Activated:
        """Wait until it runs on the destination."""
        move, account = self.ready.move, self.ready.move.account
        activated = move.link.expect(pb.Activated, timeout_s=move.timeout_s)
        message_checks.check(activated)
        move.seen.after = activated
        account.timeline.stop(Span.ISOLATED)
        account.timeline.stop(Span.FROZEN)
        account.timeline.hear(activated.phases, move.link.clocks.offset)
        before = account.report.destination_pid
        pid = message_checks.destination_pid(activated, move.plan.prepare, before)
        self.ready.journal.state(State.ACTIVATED.value, destination_pid=pid)
        return Activated(self.ready, self.attempt, self._found)


class Activated(Still):
    """It runs on the destination."""

    state: ClassVar[State] = State.ACTIVATED

    def _next(self) -> Released:
        """Kill the frozen tree, silently: its sockets are in repair mode, isolated, and have no address."""
        ready, move, packets = self.ready, self.ready.move, self.ready.packets
        self._found.extract.close()
        move.account.report.notes += self._found.tree.too_late(self.ready.images.directory, move.request.host)
        undo.watch_no_more(records.of(self.ready.journal))
        killed = identity.kill(self._found.tree.tasks)
        self.ready.hold.let_go()
        self.attempt.worker.close()  # before the wait: CRIU traces them
        left = identity.not_gone(killed)
        if left:
            raise MigrateError(f"could not kill {', '.join(str(pid) for pid, _ in left)}")
        packets.forwarder.linger(*switch.late_s(move.plan.switch))
        packets.forwarder.stop()
        report = move.account.report
        report.sent.gap_packets, report.sent.gap_dropped = packets.forwarder.packets, packets.capture.dropped
        packets.isolation.release()
        try:
            ready.switch.keep()
        except MigrateError as error:
            report.notes.append(str(error))
        move.link.send(pb.Goodbye())
        goodbye = move.link.expect(pb.Goodbye, timeout_s=move.timeout_s)
        message_checks.check(goodbye)
        move.seen.last = list(goodbye.tasks)
        report.notes += [f"{move.request.host}: {note}" for note in goodbye.notes]
        report.notes += [f"not cleaned up on {move.request.host}: {problem}" for problem in goodbye.problems]
        return Released(self.ready, self.attempt)


class Released(Stage):
    """Nothing is left here but what has to be given back."""

    state: ClassVar[State] = State.RELEASED

    def _next(self) -> Stage:
        raise ValueError("no step is left")
