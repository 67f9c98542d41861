"""The service addresses are on both hosts all the time, and nothing of this program adds or removes one: ``none``.

Which host gets what is sent to them, the network decides: a router, a load balancer, whoever announces them.
Until the process is given away the destination's filter drops what comes there for it, and after that what still
comes to the origin is sent on for a while; so nobody is answered by the wrong host.
"""

from __future__ import annotations

from typing import Any

from migrate.errors import SwitchError
from migrate.switch import Address, Switch, netlink


def make(role: str, migration_id: str, addresses: list[Address], **more: Any) -> Switch:
    """See :class:`migrate.switch.Kind`."""
    return OnBoth("none", role, migration_id, addresses)


class OnBoth:
    """One host's part: that the addresses are there; and what other ways with such addresses have in common.

    :param kind: as in :meth:`details`.
    """

    def __init__(self, kind: str, role: str, migration_id: str, addresses: list[Address]) -> None:
        self.kind, self.role, self.migration_id = kind, role, migration_id
        self.addresses = addresses

    def choose(self) -> None:
        """See :class:`migrate.switch.Switch`."""
        self._require_here()

    def require_free(self) -> None:
        """Nobody has removed one since."""
        self._require_here()

    def prepare(self) -> None:
        """See :class:`migrate.switch.Switch`."""

    def switch(self) -> None:
        """See :class:`migrate.switch.Switch`."""

    def renew(self) -> None:
        """See :class:`migrate.switch.Switch`."""

    def keep(self) -> None:
        """See :class:`migrate.switch.Switch`."""

    def undo(self) -> None:
        """See :class:`migrate.switch.Switch`."""

    def remind(self) -> None:
        """Nothing: by then the network may have been switched once more."""

    def notes(self) -> list[str]:
        """See :class:`migrate.switch.Switch`."""
        return []

    def changed(self) -> list[str]:
        """See :class:`migrate.switch.Switch`."""
        return []

    def verify(self) -> None:
        """Raise unless the addresses are here: that is all that can be seen."""
        self._require_here()

    def details(self) -> dict[str, Any]:
        """See :class:`migrate.switch.Switch`."""
        return {
            "kind": self.kind,
            "role": self.role,
            "migration_id": self.migration_id,
            "addresses": [[one.ip, one.prefix_length, one.device] for one in self.addresses],
        }

    def _require_here(self) -> None:
        wanted = {one.ip for one in self.addresses}
        if not wanted:
            return
        with netlink.route("look at this host's addresses"):
            missing = wanted - netlink.here(wanted)
        if missing:
            text = f"{', '.join(sorted(missing))} is not on this host, as it must be for --switch {self.kind}"
            raise SwitchError(text, hint="Add it there (ip addr add), without that it answers for it yet.")
