"""A unit of systemd: systemd has its main process on either host, and is told that it has gone, and has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from migrate.errors import MigrateError
from migrate.pb.session_pb2 import ProcessInventory
from migrate.processes.arriving_unit import Placeholder
from migrate.processes.identity import Identity
from migrate.runtime.bare import Bare

#: As messages and journals call it.
SYSTEMD = "systemd"


class OfUnit:
    """See :class:`migrate.runtime.Runtime`.

    :ivar unit: at the origin: its name. :ivar cgroup: its directory there, when it has been looked at.
    :ivar streams: inode and number of those of its standard streams that lead to the journal.
    """

    name = SYSTEMD

    def __init__(self, unit: str = "") -> None:
        self.unit, self.cgroup = unit, Path()
        self.streams: dict[int, int] = {}
        self._placeholder: Placeholder | None = None
        self._adopt: Callable[[int], None] | None = None

    def keeps(self, pid: int) -> bool:
        """None by its PID: a unit is named."""
        return False

    def inventory(self, pid: int) -> ProcessInventory:
        """See :class:`migrate.runtime.Runtime`."""
        # Here, since who undoes needs none of it, and is in a hurry.
        from migrate.inventory import of_unit

        if not self.unit:
            return Bare().inventory(pid)
        found = of_unit.process(self.unit, pid)
        self.cgroup, self.streams = of_unit.cgroup(found.unit), dict(found.unit.streams)
        return found

    def dump_options(self, opts: Any, *, shell_job: bool) -> None:
        """The streams to the journal stay; those that the unit has there take their place."""
        Bare().dump_options(opts, shell_job=shell_job)
        opts.external.extend(f"unix[{inode}]" for inode in sorted(self.streams))

    def arrives(
        self, placeholder: Placeholder, streams: Iterable[tuple[int, int]], adopt: Callable[[int], None]
    ) -> None:
        """On the destination: *placeholder* waits for it.

        :param streams: as :attr:`streams`, of the origin.
        :param adopt: has systemd take the process for the unit's main process.
        """
        self._placeholder, self._adopt = placeholder, adopt
        self.streams = dict(streams)

    def restore_options(self, opts: Any, *, shell_job: bool) -> None:
        """See :meth:`dump_options`."""
        Bare().restore_options(opts, shell_job=shell_job)
        if self._placeholder is not None:
            for inode, number in sorted(self.streams.items()):
                opts.inherit_fd.add(key=f"socket:[{inode}]", fd=self._placeholder.streams[number])

    def give_back(self, root: int) -> list[str]:
        """It is the unit's main process from now on."""
        try:
            if self._adopt is not None:
                self._adopt(root)
        except (MigrateError, OSError) as error:
            return [f"systemd does not have it as its unit: {error}"]
        return []

    def undo(self, built: Iterable[Identity], mark: str, images: str) -> None:
        """End its processes; that it was to come systemd forgets by an entry of its own."""
        Bare().undo(built, mark, images)
