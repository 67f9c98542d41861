"""One try to freeze the tree: a CRIU that was started before it is needed, and who takes the pages from it."""

from __future__ import annotations

import functools
from collections.abc import Generator
from concurrent import futures

from migrate import threads
from migrate.criu.worker import Options, Stage, Worker
from migrate.errors import CriuError
from migrate.journal.journal import Journal
from migrate.origin.move import Move
from migrate.origin.ready import Images
from migrate.recovery import entries
from migrate.recovery.hold import Hold
from migrate.report.timeline import Span
from migrate.watch import nothing

#: CRIU waits for our answer, with every task stopped.
FROZEN, DUMPED = "query-ext-files", "post-dump"
_ABOUT_TO_FREEZE = "pre-dump"


class Attempt:
    """CRIU runs when the constructor returns.

    What it has is given back when what *move* holds of the freeze is: CRIU sees its answer missing, and the tree
    runs again. In doubt that does not happen, and CRIU may be left to who keeps the tree still.

    :ivar worker: CRIU.
    :ivar beside: a thread that runs already, for what is looked at while CRIU dumps: to start one takes a moment,
        for which CRIU would wait.
    """

    def __init__(self, move: Move, images: Images, hold: Hold) -> None:
        self._move, self._images = move, images
        self.beside = futures.ThreadPoolExecutor(1)
        move.ours.callback(self.beside.shutdown)
        threads.submit(self.beside, nothing)
        self._pages = images.memory.at_dump()
        self._page_fd = self._pages.descriptor
        try:
            inherit = [] if self._page_fd is None else [self._page_fd]
            self.worker = Worker(inherit=inherit, heed=move.watch)
        except BaseException:
            self._pages.close()
            raise
        move.held.freeze.callback(move.account.timeline.stop, Span.FROZEN)
        move.held.freeze.callback(self.worker.close)
        move.held.freeze.callback(self._pages.close)
        move.ours.callback(self._put_away, hold)
        self._pages.start()

    def _put_away(self, hold: Hold) -> None:
        """Reap it; in doubt the tree stays held, perhaps by a CRIU that waits on without us."""
        self._pages.close()
        if not hold.leave(self.worker):
            self.worker.close()

    def freeze(self, journal: Journal) -> Generator[Stage, bool | None, None]:
        """Have CRIU freeze the tree, which it has done when this returns; ask :meth:`dump` to go on.

        :raises CriuError: it has not.
        """
        journal.did(entries.Criu(self.worker.pid, self.worker.start))
        move = self._move
        options = Options(
            self._images.directory,
            "dump.log",
            timeout_s=max(1, int(move.patience.left_s)),
            page_server_fd=self._page_fd,
            more=functools.partial(move.plan.runtime.dump_options, shell_job=move.request.along.shell_job),
        )
        going = self.worker.dump(move.request.pid, options)
        move.held.freeze.callback(going.close)
        for stage in going:
            if stage.name == _ABOUT_TO_FREEZE:
                move.account.timeline.start(Span.FROZEN)
            elif stage.name == FROZEN:
                return going
        raise CriuError("CRIU did not freeze the process")

    def dump(self, going: Generator[Stage, bool | None, None]) -> None:
        """Have CRIU write the images; the tree stays frozen, and CRIU waits.

        :param going: what :meth:`freeze` has returned.
        :raises CriuError: it could not.
        """
        for stage in going:
            if stage.name == DUMPED:
                break
        else:
            raise CriuError("CRIU ended before its dump was used")
        self._pages.finish(self._move.timeout_s, self._move.watch)
