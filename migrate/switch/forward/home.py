"""Connections that are forwarded to another host come back to the one whose address they have: the forward ends.

Where they come from, the origin of that move, nothing has to be switched: the host that forwarded them stops. Until
the process is given away they are in a set of their own there (``home``), which only makes what comes for them this
host's: who takes them out of it has it forwarded again. After that both hosts forget them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from migrate.errors import SwitchError
from migrate.switch.forward import listed, packet_filter, rules
from tcpcp.endpoint.isolation import Flow

_NOT_FORWARDED = "Let the process close them."


def by_forward(family: str, flows: Iterable[Flow]) -> dict[str, list[Flow]]:
    """Of *flows* those of each forward of this host, by its ID.

    :param family: ``"inet"`` where they are forwarded to, ``"netdev"`` where they are forwarded from.
    :raises SwitchError: one is of none.
    """
    wanted = {_ends(one): one for one in flows}
    found: dict[str, list[Flow]] = {}
    for forward in listed.present() if wanted else ():
        if forward.family == family:
            mine = [wanted.pop(ends) for ends in forward.ends if ends in wanted]
            found |= {forward.id: mine} if mine else {}
    if wanted:
        text = ", ".join(f"{local} - {peer}" for local, peer in sorted(wanted)[:3])
        where = "from" if family == "netdev" else "to"
        raise SwitchError(f"{text}: not forwarded {where} this host", hint=_NOT_FORWARDED)
    return found


def take(forwards: dict[str, list[Flow]]) -> None:
    """They are this host's from now on."""
    for id_, flows in forwards.items():
        packet_filter.run(rules.at_home(id_, flows))


def give_up(ids: Sequence[str]) -> None:
    """Those of these forwards go on to be forwarded; may be called when :func:`take` was not."""
    present = {one.id for one in listed.present() if one.family == "netdev"} if ids else set()
    for id_ in present.intersection(ids):
        packet_filter.run(rules.away(id_))


def forget(family: str, forwards: dict[str, list[Flow]]) -> None:
    """Neither host has to know them any more. What cannot be removed does nothing, and is forgotten later."""
    if not forwards:
        return
    with contextlib.suppress(SwitchError):
        for id_, flows in forwards.items():
            packet_filter.run(rules.forgotten(family, id_, flows))
    listed.sweep()


def _ends(one: Flow) -> tuple[str, str]:
    return f"{one.local.ip}:{one.local.port}", f"{one.peer.ip}:{one.peer.port}"
