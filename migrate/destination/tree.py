"""The tree that CRIU has built on the destination, as part of a state: it waits for a word to run."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

from migrate.criu import worker
from migrate.destination.built import Built
from migrate.destination.stage import Ready, Undoable
from migrate.gap.packets import Segment
from migrate.states import State
from tcpcp.record.ici import Endpoint, Ici

#: Inode on the origin -> PID here and descriptor.
Holders = Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class BuiltTree:
    """What was built, and what belongs to it.

    :ivar numbers: PID on the origin -> PID here.
    :ivar rest: what CRIU does when it goes on, see :meth:`migrate.criu.worker.Worker.restore`.
    :ivar icis: its connections. :ivar listening: where it listens.
    """

    built: Built
    numbers: Mapping[int, int]
    rest: Generator[worker.Stage, bool | None, None]
    icis: Sequence[Ici]
    listening: Sequence[Endpoint]


class Stands(Undoable):
    """A state in which the tree stands here and has not run an instruction."""

    def __init__(self, ready: Ready, tree: BuiltTree) -> None:
        super().__init__(ready.trail)
        self.ready, self.tree = ready, tree

    @property
    def root(self) -> int:
        """The tree's root, as this host numbers it."""
        return self.tree.numbers[self.ready.root]

    @property
    def not_here(self) -> bool:
        """See :class:`migrate.destination.stage.Stage`."""
        return self.tree.built.gone()

    def watch(self) -> None:
        """See :class:`migrate.destination.stage.Stage`. Nobody but us would notice that a task was killed."""
        self.tree.built.require()
        self.ready.waiting.check()
        self.ready.gate.lease.renew()

    def gap(self, packets: Iterable[Segment]) -> None:
        """See :class:`migrate.destination.stage.Stage`."""
        self.ready.gate.inlet.add(packets)

    def _note(self, state: State) -> None:
        self.trail.journal.state(state.value, destination_pid=self.root)

    def _built(self) -> Built:
        return self.tree.built
