"""A route of the gateway is changed, as in figure 3 of the paper: ``route:GATEWAY``.

Both hosts have the service addresses all the time (:mod:`migrate.switch.on_both`), no neighbour finds them there
(:mod:`migrate.switch.silence`), and the gateway has a route to each of them alone, which leads to the origin. The
destination has that lead to itself, and back again when it is undone, before its filter ends. The origin only
looks; in an undo it has the route lead here, too.

The gateway is asked over SSH (:mod:`migrate.switch.route.asked`). What it does there is in the hands of its
administrator: :mod:`migrate.switch.route.gateway` changes routes of the addresses, and to the next hops, that the
command names which the key is bound to.
"""

from __future__ import annotations

from typing import Any

from migrate.switch import Address, Switch
from migrate.switch.route.hosts import AtDestination, AtOrigin


def make(role: str, migration_id: str, addresses: list[Address], arguments: str = "", **more: Any) -> Switch:
    """See :class:`migrate.switch.Kind`. :raises SwitchError: *arguments* are no host."""
    made = AtOrigin if role == "origin" else AtDestination
    return made(migration_id, addresses, arguments, **more)
