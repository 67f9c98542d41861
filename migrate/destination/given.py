"""The states of the destination to which the process was given: until it runs, and when it does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from migrate import problems as of_errors
from migrate.destination import built
from migrate.destination.stage import Ending, Left, Ready, Settled, Stage
from migrate.destination.tree import BuiltTree, Holders, Stands
from migrate.errors import CriuError, MigrateError, ProtocolError
from migrate.gap.packets import Segment
from migrate.link import failure
from migrate.pb import session_pb2 as pb
from migrate.recovery import arrived, records
from migrate.states import State
from migrate.watch import nothing
from tcpcp.criu import stages
from tcpcp.errors import TcpcpError


class Committed(Stands):
    """The process is given to us, and has not run. The driver has no say any more, and is not waited for."""

    def __init__(self, ready: Ready, tree: BuiltTree, holders: Holders) -> None:
        super().__init__(ready, tree)
        self._holders = holders

    def watch(self) -> None:
        """Nothing is waited for."""

    def activate(self) -> Activated:
        """Have CRIU go on until the tree is whole and stopped, and runs on even if CRIU or we die then.

        :raises MigrateError: CRIU failed before that; :meth:`settle` leaves nothing.
        """
        self.use_up()
        self.ready.worker.heed = self.tree.built.require_alive
        self.ready.gate.switch.keep()
        self.ready.worker.keep()
        problems = self._let_go()
        self._note(State.ACTIVATED)
        return Activated(self.ready, self.tree, self._holders, self.root, problems)

    def _let_go(self) -> list[str]:
        """Have CRIU let go of its tasks; sentences: what was unusual.

        One that dies on the way may have let them go already: then they are never taken away again from those whom
        they have met.
        """
        try:
            next((step for step in self.tree.rest if step.name == "pre-resume"), None)
        except MigrateError:
            self.ready.worker.close(grace_s=0)
            if not self.tree.built.any_runs():
                raise
            return ["CRIU was killed there while it let the process run, which it does"]
        return []

    def settle(self) -> Settled:
        """See :class:`migrate.destination.stage.Stage`."""
        ended, _, problems = super().settle()
        return ended, "the process does not run on the destination", problems

    def _give_back(self) -> Sequence[bytes]:
        return self.ready.gate.give_back()


class Activated(Stage):
    """The process lives here.

    :param root: the tree's root, as this host numbers it. :param problems: sentences so far.
    """

    def __init__(
        self, ready: Ready, tree: BuiltTree, holders: Holders, root: int, problems: list[str]
    ) -> None:
        self._ready, self._tree, self._holders, self._root = ready, tree, holders, root
        self._problems = problems

    @property
    def not_here(self) -> bool:
        """See :class:`migrate.destination.stage.Stage`."""
        return False

    def let_run(self) -> None:
        """Let packets in and the tree run.

        Packets not before this state: what arrives is acknowledged, and would be lost if the tree came to nothing
        after all.
        """
        self._ready.worker.heed = nothing
        self._ready.gate.open(self._tree.icis)
        with contextlib.suppress(TcpcpError):  # the connections work without
            stages.wake(self._tree.icis, self._holders, self._ready.gate.netlink, runs=self._runs_already())
        with contextlib.suppress(CriuError):  # the tree runs without
            for _ in self._tree.rest:
                pass
        self._problems += [*self._ready.worker.problems(), *self._ready.runtime.give_back(self._root)]

    def _runs_already(self) -> bool:
        """Whether CRIU, which holds the tree until we let it go on, was killed."""
        try:
            self._ready.worker.check()
        except CriuError:
            return True
        return False

    def told(self) -> pb.Activated:
        """What the driver is told of it."""
        return pb.Activated(
            destination_pid=self._root,
            phases=self._ready.errand.phases,
            tasks=self._tree.built.seen(),
            problems=[*self._problems, *built.not_listening(self._tree.listening)],
        )

    def gap(self, packets: Iterable[Segment]) -> None:
        """See :class:`migrate.destination.stage.Stage`."""
        self._ready.gate.inlet.add(packets)

    def undo(self) -> Ending:
        """Nothing may: see :meth:`settle`."""
        raise ProtocolError("an abort after the commit")

    def settle(self) -> Settled:
        """See :class:`migrate.destination.stage.Stage`. Its origin may not have heard: it will ask."""
        arrived.keep(records.of(self._ready.trail.journal))
        return Left(), "the process runs on the destination", self._end()

    def goodbye(self) -> tuple[Stage, pb.Goodbye]:
        """See :class:`migrate.destination.stage.Stage`."""
        problems = self._end()
        return Left(), pb.Goodbye(
            tasks=self._tree.built.now(),
            problems=map(failure.sendable, problems),
            notes=map(failure.sendable, self._not_reached()),
        )

    def _not_reached(self) -> list[str]:
        """Sentences: why clients do not reach the process, which runs: somebody has undone the switch."""
        try:
            self._ready.gate.switch.verify()
        except (MigrateError, TcpcpError, OSError) as error:
            said = of_errors.of(error)
            return [" ".join(filter(None, (f"{said.text}: clients do not reach it.", said.hint)))]
        return []

    def _end(self) -> list[str]:
        """Clean up; sentences: what could not be."""
        self._ready.worker.close()
        problems = self._ready.trail.tidy()
        self._ready.trail.close("MOVED", problems)
        return problems
