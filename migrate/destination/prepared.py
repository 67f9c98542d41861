"""The state in which the destination takes images and files; it ends when the tree has been built of them."""

from __future__ import annotations

import functools
import time
from collections.abc import Generator, Iterable
from typing import Any

from migrate.criu import log, worker
from migrate.destination import announced, built, still_free
from migrate.destination.incoming import Incoming
from migrate.destination.reserve import Reserve
from migrate.destination.restored import Standing
from migrate.destination.stage import Ready, Undoable
from migrate.destination.tree import BuiltTree
from migrate.errors import CriuError
from migrate.files import images as image_files
from migrate.files import stream
from migrate.files.taker import FileTaker
from migrate.link.payloads import Connections, Piece
from migrate.pb import session_pb2 as pb
from migrate.processes import identity
from migrate.recovery import entries
from tcpcp.criu import stages, tree
from tcpcp.endpoint.same_path import InitialWindows
from tcpcp.record.ici import Ici

#: When CRIU has not built the tree in time.
WAITING_HINT = (
    "Look there for what it waits for: a lock that somebody holds (lslocks), a device or a file system that does"
    " not answer. Or allow more with --max-gap."
)


class Prepared(Undoable):
    """All is ready that needs no image."""

    def __init__(self, ready: Ready, images: Incoming) -> None:
        super().__init__(ready.trail)
        self._ready, self._images = ready, images
        self._files = FileTaker(ready.trail.journal)
        self._reserve = Reserve(ready.errand.tree.memory_bytes)
        self.trail.first.callback(self._reserve.close)

    def watch(self) -> None:
        """See :class:`migrate.destination.stage.Stage`."""
        self._ready.waiting.check()
        self._ready.gate.lease.renew()

    def take(self, piece: Piece) -> None:
        """Take a piece of an image.

        :raises MigrateError, TcpcpError: :meth:`undo` leaves nothing.
        """
        self._images.take(piece)
        if image_files.is_ahead(piece.name):
            self._reserve.arrived(len(piece.data))
        else:  # the tree is frozen: there is time until the last one is here
            self._reserve.let_go()

    def copied(self) -> None:
        """What was to be copied before the freeze is in its place: a runtime may read the bundle of its container.

        :raises MigrateError: it cannot be started; :meth:`undo` leaves nothing.
        """
        self._ready.waiting.begin()

    def connect(self, some: Connections) -> None:
        """Take connections, and make CRIU's images of them. :raises TcpcpError: as :meth:`take`."""
        self._images.connect(some)

    def copy(self, piece: Piece) -> None:
        """Take a piece of a file that is copied to its own place, or of what a container has written."""
        if piece.name == stream.LAYER:
            self._ready.waiting.take(piece)
        else:
            self._files.take(piece)

    def build(self, restore: pb.Restore) -> Standing:
        """Build the tree.

        :raises MigrateError, TcpcpError: :meth:`undo` leaves nothing.
        """
        self.use_up()
        ready, timed = self._ready, self._ready.errand.timed
        announced.tasks(ready.request, restore.tasks)
        ready.worker.heed = functools.partial(self._heed, _until(restore.most_ms))
        with timed("verify"):
            self._images.verify(restore)
        with timed("compile"):
            icis = self._images.finish(restore)
            announced.addresses(ready.request, icis)
        with timed("hold"):
            listening = self._images.listening()
            ready.gate.hold(icis, listening, self.trail.journal)
        ready.waiting.fill(self._images.directory)
        self._images.rename(restore)
        notes = self._images.forget_parent(ready.root, restore)
        self._images.begin_calls_again(restore)
        self._images.set_timers()
        meanwhile = self._images.place_unix_sockets(ready.request, self.trail.journal)
        self.trail.first.callback(meanwhile.close)
        if not ready.errand.container.name:  # what CRIU makes in a container's own files goes with these
            self._images.note_ghosts(self.trail.journal)
        self._reserve.close()
        if not ready.worker.own_numbers:
            built.free(_numbers_of(restore, ready.request.tids))
        still_free.require(listening, icis)
        still_free.require_udp(self._images.directory)
        self._files.require_unwritten()
        with meanwhile.require_none(), timed("build"), ready.gate.needed(icis), self._initial_windows(icis):
            rest = self._build()
        meanwhile.close()
        pids = self._numbers([task.pid for task in restore.tasks])
        notes += self._images.mark_segments(pids[ready.root])
        held = [*self._images.held, *restore.sockets]
        tree_ = BuiltTree(built.Built(restore.tasks, pids), pids, rest, ready.gate.marked(icis), listening)
        return Standing(ready, tree_, held, notes)

    def _heed(self, until: float) -> None:
        """While we wait for CRIU: it keeps a process of the origin waiting."""
        self._ready.errand.called_off()
        self._ready.gate.lease.renew()
        if time.monotonic() > until:
            text = "CRIU could not build it in the time that the origin allows"
            raise CriuError(text, hint=WAITING_HINT)

    def _numbers(self, pids: list[int]) -> dict[int, int]:
        """PID on the origin -> PID as this host sees it: the same, but in a new PID namespace."""
        init = self._ready.worker.namespace_init
        if not init:
            return {pid: pid for pid in pids}
        return {identity.innermost(pid): pid for pid in tree.tasks(init)}

    def _initial_windows(self, icis: list[Ici]) -> InitialWindows:
        """What CRIU's restore happens within; routes that it makes are ours to remove."""
        windows = stages.restoring(icis, same_path=self._ready.request.same_path)
        if windows.routes:
            self.trail.journal.did(entries.Routes(tuple(route.hex() for route in windows.routes)))
        return windows

    def _build(self) -> Generator[worker.Stage, bool | None, None]:
        """Have CRIU build the tree, until it waits for our word; what it does after that."""
        criu, request = self._ready.worker, self._ready.request
        self._note_tree(())
        self.trail.journal.did(entries.Criu(criu.pid, criu.start))
        options = worker.Options(
            self._images.directory,
            log.OF_RESTORE,
            timeout_s=request.timeout_s,
            more=self._fill,
        )
        steps = criu.restore(options)
        self.trail.first.callback(steps.close)
        for step in steps:
            if step.name == "post-restore":
                if not criu.own_numbers:
                    announced.root(request, step.pid)
                self._note_tree(tree.tasks(criu.namespace_init or self._ready.root))
                return steps
        raise CriuError("CRIU ended before the tree was built")

    def _fill(self, opts: Any) -> None:
        """What is special to this tree, of CRIU's criu_opts."""
        self._ready.runtime.restore_options(opts, shell_job=self._ready.request.shell_job)
        self._ready.waiting.reconnections.fill(opts)

    def _note_tree(self, pids: Iterable[int]) -> None:
        """What a rollback would kill: *pids*, which CRIU says it has built, and what bears our marks."""
        tasks = tuple(identity.identity(pid) for pid in pids)
        mark, path = self._ready.errand.mark, str(self._images.directory)
        self.trail.journal.did(entries.Tree(tasks, mark, path, self._ready.runtime.name))


def _numbers_of(restore: pb.Restore, checked: Iterable[int]) -> set[int]:
    """Those that tasks and threads of the tree have; of the threads those, too, that have begun since the check.

    :param checked: of the threads that the check found.
    """
    threads = (thread.tid for one in restore.surroundings for thread in one.threads)
    return {*(task.pid for task in restore.tasks), *checked, *threads}


def _until(most_ms: int) -> float:
    return time.monotonic() + most_ms / 1000 if most_ms else float("inf")
