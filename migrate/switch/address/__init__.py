"""The service address moves: withdrawn at the origin, added at the destination, announced from there.

The destination has the address before it answers for it: sockets can be restored only on an address that
exists, so it is added *mute*, with the host's ARP and neighbour advertisements for it dropped. The origin
withdraws it, and only then is the destination's mute lifted and the address announced: there is no moment
in which both answer. Until COMMIT the destination has the address for some seconds only, by the kernel's clock,
and renews that: if it stands still it loses the address, and the origin, which goes on alone, is the only one to
answer. A packet that reaches the origin after that finds no socket and no address, so it
draws no reset.
"""

from __future__ import annotations

from typing import Any

from migrate.switch import Address, Switch
from migrate.switch.address.destination import AtDestination
from migrate.switch.address.origin import AtOrigin

__all__ = ["AtDestination", "AtOrigin", "make"]


def make(role: str, migration_id: str, addresses: list[Address], **more: Any) -> Switch:
    """See :class:`migrate.switch.Kind`."""
    made = AtOrigin if role == "origin" else AtDestination
    return made(migration_id, addresses, **more)
