"""A bare process: nobody keeps it but the kernel, and whoever started it, who stays behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from migrate.errors import MigrateError
from migrate.pb.session_pb2 import ProcessInventory
from migrate.processes import identity, made_here
from migrate.processes.identity import Identity


class Bare:
    """See :class:`migrate.runtime.Runtime`."""

    name = "bare"

    def keeps(self, pid: int) -> bool:
        """Any is one, if nobody else has it."""
        return True

    def inventory(self, pid: int) -> ProcessInventory:
        """See :class:`migrate.runtime.Runtime`."""
        # Here, since who undoes needs none of it, and is in a hurry.
        from migrate.inventory import process

        return process(pid)

    def dump_options(self, opts: Any, *, shell_job: bool) -> None:
        """See :class:`migrate.runtime.Runtime`."""
        opts.shell_job = shell_job

    def restore_options(self, opts: Any, *, shell_job: bool) -> None:
        """See :class:`migrate.runtime.Runtime`."""
        opts.shell_job = shell_job

    def give_back(self, root: int) -> list[str]:
        """Nothing to do: its parent is the host's init, as of any daemon."""
        return []

    def undo(self, built: Iterable[Identity], mark: str, images: str) -> None:
        """Kill what a restore built, again until nothing is left: one that was just forking left a child."""
        built = list(built)
        while found := made_here.processes_of(built, mark, images):
            if stubborn := identity.end(found):
                raise MigrateError(f"could not kill {', '.join(str(pid) for pid, _ in stubborn)}")
