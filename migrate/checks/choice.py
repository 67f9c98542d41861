"""How traffic is switched where that is left to be found out (``--switch auto``). Pure."""

from __future__ import annotations

import dataclasses
import ipaddress

from migrate.checks import to_forward
from migrate.checks.subject import Subject, names
from migrate.inventory import ports
from migrate.request import AUTO, FORWARD, SWITCH

_BOTH = f"{FORWARD}+{SWITCH}"


def chosen(subject: Subject) -> tuple[str, str]:
    """What *subject* is switched by: what was asked for, or if that is :data:`AUTO` what does.

    And why, "" if it was asked for.

    Service addresses move. What the process has connected from addresses that cannot is forwarded, whether that is
    possible or not: why not, the checks say.
    """
    if subject.switch != AUTO:
        return subject.switch, ""
    if subject.process.container.network:
        return SWITCH, "the container's address moves along"
    both = dataclasses.replace(subject, switch=_BOTH)
    used = [ipaddress.ip_address(one) for one in ports.service_addresses(subject.process)]
    staying = [str(ip) for ip in used if to_forward.stays(both, ip)]
    if not staying:
        return SWITCH, "the process has connected from no address that has to stay here"
    why = (
        f"connections that the process has made from {names(staying)}, which stays here, have to be forwarded"
    )
    if len(staying) == len(used) and not ports.reached(subject.process):
        return FORWARD, f"{why}, and nobody else reaches it"
    return _BOTH, f"{why}; what it is reached by moves with it"
