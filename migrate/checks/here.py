"""Whether a process could leave this host, as far as this host alone can tell: all reasons against it out. Pure.

What needs the destination is left out, and with it what a look at that could excuse: that both hosts see one
storage, say.
"""

from __future__ import annotations

from collections.abc import Mapping

from migrate.checks import containers, reasons, reconnections, units
from migrate.checks.addresses import addresses_movable
from migrate.checks.around import unsupervised
from migrate.checks.beside import trees_sound
from migrate.checks.forwarded import nobody_comes
from migrate.checks.network import peers_elsewhere, sockets_whole
from migrate.checks.obstacles import obstacles
from migrate.checks.reasons import Check
from migrate.checks.subject import ORIGIN, Subject
from migrate.checks.wildcards import address_named
from migrate.errors import Reason
from migrate.pb.session_pb2 import HostInventory, ProcessInventory
from migrate.request import SWITCH, Along

#: What no check without the destination can tell, for a person.
LEFT_OUT = (
    "this host alone was looked at: only a check with HOST tells whether that can be reached, has a CRIU that"
    " works, the processor's instructions and memory enough, and whether files, ports, names, PIDs and networks are"
    " there as the process needs them"
)

OF_THIS_HOST: tuple[Check, ...] = (reasons.host_problems, reasons.criu_works)
OF_THE_CHOICE: tuple[Check, ...] = (reasons.not_ourselves, reasons.an_ordinary_process)
#: Those of :data:`migrate.checks.reasons.OF_THE_PROCESS` that need no destination, in the same order.
OF_THE_PROCESS: tuple[Check, ...] = (
    reasons.own_session,
    unsupervised,
    units.described,
    containers.described,
    obstacles,
    sockets_whole,
    peers_elsewhere,
    address_named,
    nobody_comes,
    addresses_movable,
    reconnections.idle,
    trees_sound,
    reasons.room,
)


def refusals(
    process: ProcessInventory,
    origin: HostInventory,
    along: Along,
    needed: Mapping[str, tuple[str, str]] | None = None,
    *,
    switch: str = SWITCH,
) -> list[Reason]:
    """Return every reason not to begin that this host knows, the ones about itself first.

    Each of them is one with any destination. Parameters as of :func:`migrate.checks.reasons.refusals`.
    """
    subject = Subject(process, origin, HostInventory(), along, needed or {}, switch)
    return reasons.judged(subject, OF_THE_CHOICE, OF_THIS_HOST, OF_THE_PROCESS, ORIGIN)
