"""What all states of the destination have in common, and the two in which it ends.

A state is an object that has what that state has. A step takes one and returns the next, which is given all that
is still needed; the one before is used up. A step that fails leaves its state to be undone, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from migrate.criu.worker import Worker
from migrate.destination.built import Built
from migrate.destination.errand import Errand
from migrate.destination.gate import Gate
from migrate.destination.trail import Trail
from migrate.destination.waiting import Waiting
from migrate.gap.packets import Segment
from migrate.once import Once
from migrate.pb import session_pb2 as pb
from migrate.runtime import Runtime
from migrate.states import Outcome

#: The state after an undo; what was undone and what could not be, as sentences.
Ending = tuple["Stage", list[str], list[str]]
#: The state after the driver has gone; where the process is after COMMIT, a sentence, or ""; what was not undone.
Settled = tuple["Stage", str, list[str]]


class Stage(Once):
    """A state in which nothing is here that would have to be undone."""

    #: What it is if it ends so.
    outcome: Outcome = Outcome.UNTOUCHED
    #: What was caught for connections that do not live here after all.
    caught: Sequence[bytes] = ()

    @property
    def not_here(self) -> bool:
        """Whether the process does not run here, and will not: nothing was built, or it is gone again."""
        return True

    def watch(self) -> None:
        """While we wait for the driver: look whether all is well, and keep up what would end by itself.

        :raises MigrateError, TcpcpError, OSError: it is not; :meth:`undo` leaves nothing.
        """

    def gap(self, packets: Iterable[Segment]) -> None:
        """Take packets that arrived at the origin: for the connections when they live here, else for nobody."""

    def undo(self) -> Ending:
        """Undo everything; nothing of the migration is left here."""
        return self, [], []

    def settle(self) -> Settled:
        """Without the driver: leave what runs, else remove everything."""
        ended, _, problems = self.undo()
        return ended, "", problems

    def goodbye(self) -> tuple[Stage, pb.Goodbye]:
        """The driver goes, and says so: clean up where the tree runs; how its tasks are then, and what is left."""
        return self, pb.Goodbye()


class Undone(Stage):
    """The end of a migration that came to nothing here.

    :param built: the tree, if one was built: whether it is really gone.
    """

    outcome = Outcome.ROLLED_BACK

    def __init__(self, built: Built | None, caught: Sequence[bytes]) -> None:
        self._built, self.caught = built, caught

    @property
    def not_here(self) -> bool:
        """See :class:`Stage`."""
        return self._built is None or self._built.gone()


class Left(Stage):
    """The end of a migration that has come here: the tree runs, and needs nobody."""

    outcome = Outcome.MOVED

    @property
    def not_here(self) -> bool:
        """See :class:`Stage`."""
        return False


class Undoable(Stage):
    """A state with a journal, of what has to be undone."""

    def __init__(self, trail: Trail) -> None:
        self.trail = trail

    def undo(self) -> Ending:
        """See :class:`Stage`."""
        undone, problems = self.trail.roll_back()
        ended = Undone(self._built(), self._give_back())
        self.trail.close("ROLLED_BACK", problems)
        return ended, undone, problems

    def _built(self) -> Built | None:
        return None

    def _give_back(self) -> Sequence[bytes]:
        return ()


@dataclass(frozen=True, slots=True)
class Ready:
    """What is there from the state PREPARED to the end, and given on from state to state.

    :ivar waiting: CRIU, which waits for the images.
    :ivar runtime: what keeps such trees here.
    """

    errand: Errand
    request: pb.Prepare
    trail: Trail
    waiting: Waiting
    gate: Gate
    runtime: Runtime

    @property
    def worker(self) -> Worker:
        """CRIU."""
        return self.waiting.worker

    @property
    def root(self) -> int:
        """The root of the tree as the origin numbers it."""
        return self.request.pids[0]
