"""The states of the destination from the tree that CRIU has built to the last moment before COMMIT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from migrate.destination.given import Committed
from migrate.destination.stage import Ready
from migrate.destination.tree import BuiltTree, Holders, Stands
from migrate.errors import ProtocolError
from migrate.events import log
from migrate.inventory import plain_options
from migrate.pb import session_pb2 as pb
from migrate.processes import surroundings
from migrate.states import State
from tcpcp.criu import stages


class Standing(Stands):
    """The tree stands; what CRIU does not know of its sockets, and around it, is still to be set.

    :param held: who holds which of its sockets, as the origin numbers them.
    :param notes: sentences: what is different from the origin.
    """

    def __init__(
        self, ready: Ready, tree: BuiltTree, held: Iterable[pb.HeldSocket], notes: list[str]
    ) -> None:
        super().__init__(ready, tree)
        self._held, self._notes = {one.inode: one.holders[0] for one in held}, notes

    def finish(self, restore: pb.Restore) -> Restored:
        """Set that. :raises MigrateError, TcpcpError: :meth:`undo` leaves nothing."""
        self.use_up()
        self._note(State.RESTORED)
        holders = self._holders(restore)
        with self.ready.errand.timed("finish"):
            listeners = {one.inode: (dict(one.options), one.congestion) for one in restore.listeners}
            same_path = self.ready.request.same_path
            stages.finish(self.tree.icis, holders, listeners, same_path=same_path)
            notes = self._notes + plain_options.put_back(map(_options, restore.others), holders)
            notes += surroundings.put_back(restore.surroundings, self.tree.numbers)
        self.ready.gate.lease.check()
        return Restored(self.ready, self.tree, holders, notes)

    def _holders(self, restore: pb.Restore) -> Holders:
        numbers, held = self.tree.numbers, self._held
        if strangers := sorted({one.pid for one in held.values() if one.pid not in numbers}):
            text = f"sockets of processes that were not restored: {strangers[:5]}"
            raise ProtocolError(f"received {text}")
        wanted = (
            *(ici.tag for ici in self.tree.icis),
            *(one.inode for one in (*restore.listeners, *restore.others)),
        )
        if unheld := sorted({inode for inode in wanted if inode not in held}):
            text = f"sockets that nobody holds: {unheld[:5]}"
            raise ProtocolError(f"received {text}")
        return {inode: (numbers[one.pid], one.fd) for inode, one in held.items()}


def _options(one: pb.SocketOptions) -> tuple[int, plain_options.Values]:
    """A socket and all that it shall have."""
    return one.inode, {**one.options, **one.values}


class Restored(Stands):
    """The tree is whole, and its sockets are mute."""

    def __init__(self, ready: Ready, tree: BuiltTree, holders: Holders, notes: list[str]) -> None:
        super().__init__(ready, tree)
        self._holders, self._notes = holders, notes

    def told(self) -> pb.Restored:
        """What the driver is told of it."""
        phases = self.ready.errand.phases
        notes = [*self._notes, *log.problems()]
        return pb.Restored(destination_pid=self.root, phases=phases, notes=notes)

    def keep_everything(self) -> None:
        """Keep what arrives from now on: the origin has withdrawn the addresses."""
        self.ready.gate.keep_everything()

    def switch(self) -> Switched:
        """Answer for the service addresses."""
        self.use_up()
        self.ready.gate.switch.switch()
        return Switched(self.ready, self.tree, self._holders)


class Switched(Stands):
    """Peers find the addresses here, for seconds only, and nobody answers."""

    def __init__(self, ready: Ready, tree: BuiltTree, holders: Holders) -> None:
        super().__init__(ready, tree)
        self._holders = holders

    def watch(self) -> None:
        """See :class:`migrate.destination.stage.Stage`. The addresses would end by themselves."""
        super().watch()
        self.ready.gate.switch.renew()

    def verify(self) -> None:
        """Make sure that they are here. :raises SwitchError: they are not."""
        self.ready.gate.switch.verify()

    def require_whole(self) -> None:
        """Make sure that there is nothing yet that would speak against running.

        :raises MigrateError: there is.
        """
        self.watch()
        self.tree.built.require_whole()

    def check(self) -> None:
        """:meth:`require_whole`, and that the guardian lives and the filter holds."""
        self.require_whole()
        self.trail.guardian.check()
        self.ready.gate.lease.check()

    def commit(self) -> Committed:
        """It is ours from here on, whatever happens to the link.

        :raises MigrateError: the tree is not whole any more; :meth:`undo` leaves nothing.
        """
        self.use_up()
        self.require_whole()  # the last moment in which it costs a rollback and no doubt
        self._note(State.COMMITTED)
        return Committed(self.ready, self.tree, self._holders)

    def _give_back(self) -> Sequence[bytes]:
        return self.ready.gate.give_back()
