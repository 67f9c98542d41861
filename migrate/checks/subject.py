"""What the checks are about, and the words that they share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from migrate.pb.session_pb2 import HostInventory, ProcessInventory, Task
from migrate.request import ANYWHERE, ON_BOTH, SWITCH, Along, apart

ORIGIN, DESTINATION = "origin", "destination"


@dataclass(frozen=True, slots=True)
class Subject:
    """One question: can this process go from here to there, as the user wants it?

    :ivar along, needed, switch: see :func:`migrate.checks.reasons.refusals`.
    """

    process: ProcessInventory
    origin: HostInventory
    destination: HostInventory
    along: Along = Along()
    needed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    switch: str = SWITCH

    @property
    def forward(self) -> str:
        """How connections that keep the origin's own addresses are forwarded; "" if none are."""
        return apart(self.switch)[0]

    @property
    def of_service(self) -> str:
        """How service addresses are switched; "" if there shall be none."""
        return apart(self.switch)[1]

    @property
    def on_both(self) -> bool:
        """Whether the service addresses are on both hosts all the time, as it is switched."""
        return self.of_service.partition(":")[0] in ON_BOTH

    @property
    def whole_address(self) -> bool:
        """Whether all that is sent to a service address comes to the destination then, whoever it is for."""
        return self.of_service.partition(":")[0] not in ANYWHERE

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
