"""Two ways in one move: ``forward+KIND``, what has connected from the origin's own addresses, and what is reached.

Each has the addresses that are its own (:attr:`migrate.switch.Address.stays`), and does on either host what it
does alone. Nothing of one depends on the other: until the process is given away the destination's filter holds
everything, whichever way it comes there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from migrate import request, switch
from migrate.errors import SwitchError
from migrate.switch import Address, Switch

if TYPE_CHECKING:
    from tcpcp.endpoint.isolation import Flow
    from tcpcp.record.ici import Ici


def make(
    kind: str,
    role: str,
    migration_id: str,
    addresses: list[Address],
    parts: Iterable[Mapping[str, Any]] | None = None,
) -> Switch:
    """See :func:`migrate.switch.make`.

    :param parts: the details of both; given when a guardian undoes.
    """
    kinds = request.apart(kind)
    if request.apart(kinds[1])[0]:
        raise SwitchError(f"--switch {kinds[0]}+ is followed by another way, not by {kinds[1][:100]!r}")
    if parts is None:
        both = [
            switch.make(one, role, migration_id, [address for address in addresses if address.stays == stays])
            for one, stays in zip(kinds, (True, False), strict=True)
        ]
    else:
        both = [switch.from_details(one) for one in parts]
    return Together(kind, role, migration_id, addresses, both)


class Together:
    """One host's part of both.

    :param parts: the forward's, and the other.
    """

    def __init__(
        self, kind: str, role: str, migration_id: str, addresses: list[Address], parts: list[Switch]
    ) -> None:
        self.kind, self.role, self.migration_id = kind, role, migration_id
        self.addresses, self._parts = addresses, parts

    def connections(self, flows: Iterable[Flow]) -> None:
        """See :class:`migrate.switch.ByConnection`."""
        told = list(flows)
        for one in self._parts:
            switch.tell(one, told)

    def marked(self, icis: Iterable[Ici]) -> list[Ici]:
        """See :class:`migrate.switch.ByConnection`."""
        found = list(icis)
        for one in self._parts:
            if isinstance(one, switch.ByConnection):
                found = one.marked(found)
        return found

    def choose(self) -> None:
        """See :class:`migrate.switch.Switch`; so are all that follow."""
        for one in self._parts:
            one.choose()

    def notes(self) -> list[str]:
        """Those of both."""
        return [note for one in self._parts for note in one.notes()]

    def require_free(self) -> None:
        """Of both."""
        for one in self._parts:
            one.require_free()

    def prepare(self) -> None:
        """Both."""
        for one in self._parts:
            one.prepare()

    def switch(self) -> None:
        """The forward first, which finds its ways as long as the host's addresses are as they were."""
        for one in self._parts:
            one.switch()

    def renew(self) -> None:
        """Both."""
        for one in self._parts:
            one.renew()

    def keep(self) -> None:
        """Both."""
        for one in self._parts:
            one.keep()

    def undo(self) -> None:
        """Both, the last first, whatever becomes of either. :raises SwitchError: what could not be undone."""
        self._each(lambda one: one.undo())

    def remind(self) -> None:
        """Both."""
        self._each(lambda one: one.remind())

    def changed(self) -> list[str]:
        """Of both."""
        return [said for one in self._parts for said in one.changed()]

    def verify(self) -> None:
        """Both are in force."""
        for one in self._parts:
            one.verify()

    def details(self) -> dict[str, Any]:
        """See :class:`migrate.switch.Switch`."""
        return {
            "kind": self.kind,
            "role": self.role,
            "migration_id": self.migration_id,
            "addresses": [[one.ip, one.prefix_length, one.device, one.stays] for one in self.addresses],
            "parts": [one.details() for one in self._parts],
        }

    def _each(self, call: Callable[[Switch], None]) -> None:
        """Of what fails for one the other hears nothing."""
        failed: list[Exception] = []
        for one in reversed(self._parts):
            try:
                call(one)
            except Exception as error:  # of another package's way, too
                failed.append(error)
        if failed:
            raise SwitchError("; ".join(map(str, failed))) from failed[0]
