"""One try to freeze the tree: a CRIU that was started before it is needed, and who takes the pages from it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from concurrent import futures
from typing import Any

from migrate import threads
from migrate.criu import own_namespace
from migrate.criu.worker import Options, Stage, Worker
from migrate.errors import CriuError
from migrate.inventory import epolls
from migrate.journal.journal import Journal
from migrate.origin.frozen import FrozenTree
from migrate.origin.move import Move
from migrate.origin.ready import Images
from migrate.processes import identity, network
from migrate.processes.podman import Podman
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

    :param epolls_known: CRIU need not ask what epolls watch, see :func:`migrate.inventory.epolls.say_all`; this is
        looked at again when the tree is frozen.
    :ivar worker: CRIU.
    :ivar beside: a thread that runs already, for what is looked at while CRIU dumps: to start one takes a moment,
        for which CRIU would wait.
    """

    def __init__(self, move: Move, images: Images, hold: Hold, *, epolls_known: bool) -> None:
        self._move, self._images, self.epolls_known = move, images, epolls_known
        self.beside = futures.ThreadPoolExecutor(1)
        move.ours.callback(self.beside.shutdown)
        threads.submit(self.beside, nothing)
        self._pages = images.memory.at_dump()
        self._page_fd = self._pages.descriptor
        self._images_fd: int | None = None
        try:
            self.worker = self._started()
        except BaseException:
            self._pages.close()
            raise
        for span in (Span.FROZEN, Span.ISOLATED):
            move.held.freeze.callback(move.account.timeline.stop, span)
        move.held.freeze.callback(self.worker.close)
        move.held.freeze.callback(self._pages.close)
        move.ours.callback(self._put_away, hold)
        self._pages.start()

    def _started(self) -> Worker:
        """CRIU, in the namespaces of the tree if an earlier move has given it some.

        There it may not see the directory of the images by its path: it inherits it.
        """
        inherit = [] if self._page_fd is None else [self._page_fd]
        with contextlib.ExitStack() as stack:
            within = stack.enter_context(own_namespace.opened(self._move.subject.pid))
            if within:
                self._images_fd = os.open(self._images.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, self._images_fd)
                inherit.append(self._images_fd)
            if isinstance(self._move.plan.container, Podman):
                # There podman starts CRIU outside of the container's network: what is restored is led into that.
                stack.enter_context(network.home())
            return Worker(
                inherit=inherit, heed=self._move.watch, within=within, epolls_known=self.epolls_known
            )

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
            images_fd=self._images_fd,
            page_server_fd=self._page_fd,
            more=self._fill,
        )
        # As CRIU numbers it: where it is in the namespace of the tree, as that does.
        pid = move.subject.pid
        going = self.worker.dump(pid if self._images_fd is None else _inside(pid), options)
        move.held.freeze.callback(going.close)
        for stage in going:
            if stage.name == _ABOUT_TO_FREEZE:
                move.account.timeline.start(Span.FROZEN)
            elif stage.name == FROZEN:
                return going
        raise CriuError("CRIU did not freeze the process")

    def _fill(self, opts: Any) -> None:
        """What is special to this tree, of CRIU's criu_opts."""
        move = self._move
        move.plan.runtime.dump_options(opts, shell_job=move.plan.prepare.shell_job)
        opts.external.extend(f"unix[{one.inode}]" for one in move.plan.prepare.reconnections)

    def may_dump(self, tree: FrozenTree) -> bool:
        """Whether what CRIU does not ask is so of *tree*, which it has frozen."""
        return not self.epolls_known or epolls.say_all(pid for pid, _ in tree.tasks)

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


def _inside(pid: int) -> int:
    """The number of *pid* for a CRIU in its namespace; one that has ended CRIU will not find either."""
    with contextlib.suppress(ProcessLookupError):
        return identity.innermost(pid)
    return pid
