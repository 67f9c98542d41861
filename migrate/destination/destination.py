"""The destination's part of a migration: each message of the driver takes it from one state to the next.

Asked -> Begun -> Prepared -> Standing -> Restored -> Switched -> Committed -> Activated -> Left, and from all but
the last two -> Undone. What a step needs to be undone is in the journal before it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from migrate import environment, order
from migrate.column import Column
from migrate.destination.asked import Asked
from migrate.destination.errand import Errand
from migrate.destination.prepared import Prepared
from migrate.destination.restored import Restored, Switched
from migrate.destination.stage import Stage
from migrate.errors import ProtocolError
from migrate.events import log
from migrate.files import stream
from migrate.gap import packets
from migrate.inventory import answer
from migrate.link import failure
from migrate.link.payloads import Piece
from migrate.pb import session_pb2 as pb
from migrate.recovery import whereabouts
from migrate.states import Outcome

S = TypeVar("S", bound=Stage)


class Destination:
    """One migration on the destination; its driver has said hello and nothing else."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._said = ""
        self._at: Stage = Asked(errand)
        self._stage = self._at

    @property
    def _stage(self) -> Stage:
        return self._at

    @_stage.setter
    def _stage(self, stage: Stage) -> None:
        self._at = stage
        log.state(type(stage).__name__.upper())

    @property
    def outcome(self) -> str:
        """What it has come to. Where nothing of it is here the origin may know better, if it has said so."""
        own = self._stage.outcome
        return self._said if self._said and own is not Outcome.MOVED else own.value

    @property
    def not_here(self) -> bool:
        """Whether the process does not run here, and will not."""
        return self._stage.not_here

    @property
    def phases(self) -> Sequence[pb.PhaseTime]:
        """What was done so far."""
        return self._errand.phases

    def handlers(self) -> dict[str, Callable[[Any], Any]]:
        """What is done for each kind of message; the answer, or None.

        They raise MigrateError, TcpcpError and OSError, see :func:`migrate.problems.step`; :meth:`settle` is to be
        called then.
        """
        return {
            "ask": lambda asked: whereabouts.find(asked.migration_id, asked.wait_ms / 1000),
            "process": self.look,
            "prepare": self.prepare,
            "compare": self.compare,
            "copy": self.copy,
            "image": lambda piece: self._now(Prepared).take(piece),
            "connections": lambda some: self._now(Prepared).connect(some),
            "restore": self.restore,
            "switch": self.switch,
            "commit": self.commit,
            "gap": lambda message: self._stage.gap(packets.parse_all(message.packets)),
            "abort": self.abort,
            "goodbye": self.goodbye,
        }

    def takes(self, kind: str) -> None:
        """A message of *kind* is taken now: what may be journalled for it is what the table says."""
        self._errand.journalled = Column(order.JOURNALLED.get(kind, ()))

    def watch(self) -> None:
        """While we wait for the driver, see :meth:`migrate.destination.stage.Stage.watch`."""
        self._stage.watch()

    def look(self, process: pb.ProcessInventory) -> pb.HostInventory:
        """Say what this host is and can do, and has, of what the process needs."""
        self._errand.about(process)
        return answer(process)

    def prepare(self, request: pb.Prepare) -> pb.Prepared:
        """Make ready what needs no image."""
        with self._errand.timed("prepare"):
            self._stage = begun = self._now(Asked).begin(request)
            self._stage = begun.prepare()
            environment.settled()
        return pb.Prepared()

    def copy(self, piece: Piece) -> None:
        """Take a piece of what is put into its own place: a file, or something of a container's."""
        if piece.name == stream.IMAGE:
            self._now(Asked).take(piece)
        else:
            self._now(Prepared).copy(piece)

    def compare(self, question: pb.Compare) -> pb.Compared:
        """Say what this host has of files. Of none: the origin asks whether what it copied has arrived."""
        if not question.files and isinstance(self._stage, Prepared):
            self._stage.copied()
        return self._errand.compare(question)

    def restore(self, request: pb.Restore) -> pb.Restored:
        """Build the tree; it has not run an instruction when this returns, and its sockets are mute."""
        self._stage = standing = self._now(Prepared).build(request)
        self._stage = restored = standing.finish(request)
        return restored.told()

    def switch(self, _: pb.Switch) -> pb.Switched:
        """Answer for the service addresses, and look whether all is well."""
        restored = self._now(Restored)
        restored.keep_everything()
        with self._errand.timed("switch"):
            self._stage = switched = restored.switch()
            switched.verify()
        switched.check()
        return pb.Switched()

    def commit(self, _: pb.Commit) -> pb.Activated:
        """Let packets in and the tree run. From here on it is ours, whatever happens to the link."""
        self._stage = committed = self._now(Switched).commit()
        with self._errand.timed("activate"):
            self._stage = activated = committed.activate()
            activated.let_run()
        return activated.told()

    def abort(self, request: pb.Abort) -> pb.Aborted:
        """Undo everything; nothing of the migration is left here."""
        self._hear(request.outcome, request.reason)
        self._stage, undone, problems = self._stage.undo()
        return pb.Aborted(undone=undone, problems=map(failure.sendable, problems), packets=self._stage.caught)

    def goodbye(self, request: pb.Goodbye) -> pb.Goodbye:
        """Clean up after the tree has been activated."""
        self._hear(request.outcome, request.reason)
        self._stage, told = self._stage.goodbye()
        return told

    def settle(self) -> tuple[str, list[str]]:
        """Without the driver, or after a failure: leave what was given to us and runs, else remove everything.

        :return: sentences: which, after the commit, else ""; what could not be undone.
        """
        self._stage, where, problems = self._stage.settle()
        return where, problems

    def _hear(self, outcome: str, reason: str) -> None:
        """What the origin says of the end."""
        self._said = outcome if outcome in Outcome.__members__ else ""
        if reason:
            log.tell("called off", outcome=self._said, reason=reason)

    def _now(self, wanted: type[S]) -> S:
        """The state, which has to be *wanted*. :raises ProtocolError: it is another one."""
        if not isinstance(self._stage, wanted):
            text = f"received what does not belong to the state {type(self._stage).__name__}"
            raise ProtocolError(text)
        return self._stage
