"""A switch of another package: the service address moves as with ``address``, and a program of the host's is told.

``/etc/migrate/switched here|away ADDRESS...`` is run on each host right after it has got, or lost, the addresses:
for what else must know, such as a cloud's table of addresses, a BGP speaker, or a load balancer. It may be told the
same twice, also what was so all the time; a status other than 0 rolls the migration back.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

from migrate import switch
from migrate.errors import SwitchError
from migrate.switch import Address, Switch

PROGRAM = os.environ.get("SWITCH_TOLD_PROGRAM", "/etc/migrate/switched")
#: The process is frozen meanwhile.
ANSWER_S = 2.0


def make(
    role: str, migration_id: str, addresses: list[Address], program: str = PROGRAM, **more: Any
) -> Switch:
    """What the entry point names; see :class:`migrate.switch.Kind`."""
    return Told(role, program, switch.make("address", role, migration_id, addresses, **more))


class Told:
    """One host's part; what is not about the program is that of *address*."""

    def __init__(self, role: str, program: str, address: Switch) -> None:
        self._role, self._program, self._address = role, program, address
        self.prepare, self.renew, self.keep = address.prepare, address.renew, address.keep
        self.require_free, self.remind, self.verify = address.require_free, address.remind, address.verify
        self.notes, self.changed = address.notes, address.changed

    def choose(self) -> None:
        """Refused before anything is touched if the program is not there."""
        self._address.choose()
        if not os.access(self._program, os.X_OK):
            hint = "Install it on both hosts, or use --switch address."
            raise SwitchError(f"{self._program} cannot be run", hint=hint)

    def switch(self) -> None:
        """It has happened when the program is told."""
        self._address.switch()
        self._tell("away" if self._role == "origin" else "here")

    def undo(self) -> None:
        """The addresses first: they are what keeps the process reachable."""
        self._address.undo()
        self._tell("here" if self._role == "origin" else "away")

    def details(self) -> dict[str, Any]:
        """Those of *address*, and what :func:`make` wants to know beside them."""
        return self._address.details() | {"kind": "told", "program": self._program}

    def _tell(self, what: str) -> None:
        addresses = [one[0] for one in self._address.details()["addresses"]]
        if not addresses:
            return
        words = [self._program, what, *addresses]
        try:
            subprocess.run(words, check=True, timeout=ANSWER_S, stdin=subprocess.DEVNULL, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise SwitchError(f"{self._program} failed: {error}") from error
