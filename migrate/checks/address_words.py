"""What is said of an address in a refusal: what the process uses it for, and what would help. Pure."""

from __future__ import annotations

from migrate.checks import interfaces
from migrate.checks.interfaces import Ip
from migrate.checks.subject import Subject, names
from migrate.inventory import ports
from migrate.request import AUTO, FORWARD, SWITCH

#: Of connections that are forwarded to this host.
NOT_ON = (
    "If they are forwarded to this host (migrate --forwards) they cannot move on, but back, with --switch auto: do"
    " that first, or let the process close them"
)


def only_connections(subject: Subject, ip: Ip) -> bool:
    """Whether nothing is at *ip* but connections."""
    here = [one for one in subject.process.sockets if one.local_ip == ip.packed]
    return bool(here) and all(map(ports.is_connection, here))


def use_another(subject: Subject, ip: Ip) -> str:
    """What to do where the address cannot be the process's alone."""
    command = interfaces.addition(subject.origin, ip, "ADDRESS")
    if only_outgoing(subject, ip):
        return (
            f"The process has made these connections itself. Give it an address of its own to make them from,"
            f" {command} (a free one), name that in its configuration (nginx: proxy_bind; haproxy: source; others:"
            f" bind or local address; or a route with `src`), and start it again.{_or_forward(subject, ip)}"
        )
    return (
        f"Add an address for the process alone, {command} (a free one), start the process again on that, and"
        " let its clients use it."
    )


def _or_forward(subject: Subject, ip: Ip) -> str:
    """What would do as it is."""
    if ip.version == 6 or subject.process.container.network or subject.forward:
        return ""
    switch = AUTO if subject.of_service == SWITCH else f"{FORWARD}+{subject.of_service}"
    return f" Or let this host, which is needed then, forward them as long as they live: --switch {switch}."


def uses(subject: Subject, ip: Ip) -> str:
    """What the address has to do with the process; behind a comma."""
    found = users(subject, ip)
    if found or str(ip) in subject.process.other_addresses:
        return f"which the process uses for {names(found) or 'sockets without a connection (UDP, raw)'}"
    return "which --address names"


def users(subject: Subject, ip: Ip) -> list[str]:
    """The sockets at it, named."""
    return [ports.name(one) for one in subject.process.sockets if one.local_ip == ip.packed]


def only_outgoing(subject: Subject, ip: Ip) -> bool:
    """Whether the process is not reached at *ip*, but has connected from it."""
    here = [one for one in subject.process.sockets if one.local_ip == ip.packed]
    listening = [one for one in subject.process.sockets if not ports.is_connection(one)]
    return bool(here) and not any(
        not ports.is_connection(one) or any(ports.accepts(other, one) for other in listening) for one in here
    )
