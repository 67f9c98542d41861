"""Connections keep the origin's own address: while they live it sends what comes for them on to the destination.

At the origin a table of the packet filter (``netdev migrate-forward-ID``) sends the packets of the connections that
moved, and only those, to the destination before anything else sees them, and what comes back to their peers. On the
destination (``inet migrate-forward-ID``, and a routing table) their sockets are found by their two ends, which are
transparent (ip(7)): no address is added there, nobody there answers ARP requests for one, and what the program
opens later comes from the destination's own address.

It is the kernels' alone: no process of ours is needed. A connection that has ended, or has been silent for very
long, is forgotten by either of them (:mod:`migrate.switch.forward.rules`); what is left then is an empty table,
which the next one to look for it removes (:mod:`migrate.switch.forward.listed`).
"""

from __future__ import annotations

from typing import Any

from migrate.switch import Address, Switch
from migrate.switch.forward.destination import AtDestination
from migrate.switch.forward.origin import AtOrigin

__all__ = ["AtDestination", "AtOrigin", "make"]


def make(role: str, migration_id: str, addresses: list[Address], arguments: str = "", **more: Any) -> Switch:
    """See :class:`migrate.switch.Kind`.

    :param arguments: the destination's address on the segment of both hosts, which the origin has to know.
    """
    if role == "origin":
        return AtOrigin(migration_id, addresses, arguments, **more)
    return AtDestination(migration_id, addresses, arguments, **more)
