"""What the checks are about, and the words that they share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from migrate.pb.session_pb2 import HostInventory, ProcessInventory, Task

ORIGIN, DESTINATION = "origin", "destination"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for, as far as it decides about refusals.

    :ivar switch: a name of ``migrate.switch``.
    :ivar no_address: no address has to move, although the process listens on a wildcard address.
    :ivar copy_files: missing files are copied.
    :ivar trees: directories that are copied as a whole.
    :ivar shell_job: the tree may belong to a session whose leader stays.
    :ivar leave_supervisor: whoever waits for the tree here may see it die.
    :ivar new_pid_namespace_possible: the tree is restored in a PID namespace of its own.
    """

    switch: str = "address"
    no_address: bool = False
    copy_files: bool = False
    trees: tuple[str, ...] = ()
    shell_job: bool = False
    leave_supervisor: bool = False
    new_pid_namespace_possible: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """One question: can this process go from here to there, as the user wants it?

    :ivar needed: see :func:`migrate.checks.reasons.refusals`.
    """

    process: ProcessInventory
    origin: HostInventory
    destination: HostInventory
    options: Options = field(default_factory=Options)
    needed: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def hosts(self) -> tuple[tuple[str, HostInventory], ...]:
        """Both hosts with their roles."""
        return (ORIGIN, self.origin), (DESTINATION, self.destination)

    @property
    def root(self) -> Task:
        """The task that was named; an empty one if the inventory has none."""
        for task in self.process.tasks:
            if task.pid == self.process.root_pid:
                return task
        return Task(pid=self.process.root_pid, sid=self.process.root_pid)

    def who(self, pid: int) -> str:
        """Name a task of the tree, e.g. ``nginx (PID 812)``."""
        for task in self.process.tasks:
            if task.pid == pid:
                return f"{task.comm} (PID {pid})"
        return f"process {pid}"


def names(words: Iterable[str], most: int = 3) -> str:
    """Join a few words, and count the others."""
    told = list(words)
    text = ", ".join(told[:most])
    return text if len(told) <= most else f"{text} and {len(told) - most} more"
