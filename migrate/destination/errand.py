"""What a session with a driver is about, from its hello to its end: whose migration, what was done when."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import NamedTuple

from migrate import inventory, problems
from migrate.column import Column
from migrate.events import log
from migrate.files.content import Digests
from migrate.journal.entry import Entry
from migrate.pb import session_pb2 as pb
from migrate.processes import network
from migrate.watch import nothing


class Tree(NamedTuple):
    """What is known of the tree that is moved.

    :ivar pid: its root as the origin numbers it, 0 while that is not known. :ivar program: that one's.
    :ivar memory_bytes: what it had when it was looked at.
    """

    pid: int = 0
    program: str = ""
    memory_bytes: int = 0


class Errand:
    """One migration, for the agent.

    :param hello: the driver's; its name for the migration has been checked.
    :param called_off: called again and again while we work for the driver; raises when that has become vain.
    :ivar container, unit: what is moved, if it is one. :ivar entered: the network namespace of it, until we end.
    :ivar asked_by: who has asked for it there, if that is said.
    :ivar journalled: the kinds of entries that may be written for the message that is taken.
    :ivar phases: what was done, when, and how long it took.
    """

    def __init__(self, hello: pb.Hello, called_off: Callable[[], None] = nothing) -> None:
        self.migration_id, self.origin_host = hello.migration_id, hello.hostname
        self.asked_by, self.called_off = hello.asked_by, called_off
        self.tree = Tree()
        self.container, self.unit = pb.Container(), pb.Unit()
        self.entered = contextlib.ExitStack()
        self.journalled = Column[type[Entry]](())
        self.phases: list[pb.PhaseTime] = []
        self._digests = Digests(called_off)

    def about(self, process: pb.ProcessInventory) -> None:
        """What is moved is *process*: from now on we are in its network namespace, if it has one here.

        :raises MigrateError: it cannot be entered.
        """
        program = next((one.comm for one in process.tasks if one.pid == process.root_pid), "")
        self.tree = Tree(process.root_pid, program, process.memory_bytes)
        self.container, self.unit = process.container, process.unit
        if process.container.archive:  # one like that which is going to be made, empty
            self.entered.enter_context(network.stay_in_an_empty_one())
        elif network.is_there(process.container.network):
            self.entered.enter_context(network.stay(process.container.network))

    def go_into(self, path: str) -> None:
        """From now on we are in the network namespace at *path*. :raises MigrateError: it cannot be entered."""
        self.entered.close()
        self.entered.enter_context(network.stay(path))

    @property
    def mark(self) -> str:
        """``NAME=VALUE`` in the environment of our CRIU, by which its helpers can be found."""
        return f"MIGRATE_ID={self.migration_id}"

    @contextlib.contextmanager
    def timed(self, phase: str) -> Generator[None, None, None]:
        """Add to the phases when a ``with`` block began and how long it took, also when it fails:
        then the error says in which it was."""
        start_ns = time.monotonic_ns()
        try:
            with log.phase(phase), problems.step(phase, "destination"):
                yield
        finally:
            duration_ns = time.monotonic_ns() - start_ns
            self.phases.append(pb.PhaseTime(name=phase, start_ns=start_ns, duration_ns=duration_ns))

    def compare(self, question: pb.Compare) -> pb.Compared:
        """Say what this host has of the files that the origin asks about, with their content."""
        return pb.Compared(files=inventory.contents(list(question.files), self._digests))
