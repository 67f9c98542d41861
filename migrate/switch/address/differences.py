"""What of an address, and of the routes that it had, is not as it was; in sentences. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from migrate.switch.address.setup import Setup
from migrate.switch.netlink import FOR_EVER, GIVEN, Present
from migrate.switch.routes import Route

#: A lifetime is what it was if it differs by so much at most, s: the kernel and we count whole seconds.
TOLERANCE_S = 5


def gone(missing: Collection[str], placed: Iterable[list[Any]]) -> tuple[str, str]:
    """Of addresses that somebody has removed: what is so, and what to do, with the commands that add them again.

    :param placed: [ip, prefix length, index, device] of each, and of others.
    """
    verb = "is" if len(missing) == 1 else "are"
    commands = (
        f"ip address add {ip}/{length} dev {device}" for ip, length, _, device in placed if ip in missing
    )
    hint = f"Look for who removed it (ip monitor address), and add it there again: {'; '.join(commands)}"
    return f"{', '.join(sorted(missing))} {verb} on no interface any more", hint


def differences(setup: Setup, present: Iterable[Present], here: Iterable[Route]) -> Iterator[str]:
    """Nothing if all is as it was, or if that is not known.

    :param present: the addresses of this host. :param here: see :meth:`Setup.routes_here`.
    """
    name = f"{setup.ip} of {setup.device}"
    if setup.unread:
        yield f"what was noted of {name} beside it cannot be read ({setup.unread}): look at its routes"
    if setup.until is None:
        return
    found = [one for one in present if (str(one.ip), one.index) == (setup.ip, setup.index)]
    if not found and setup.ended:
        yield f"the lifetime of {name} is over: it was not added again; whoever leased it to this host may do so"
    elif not found:
        yield f"{name} is not there"
    else:
        if changes := list(_changes(setup.expected(), found[0])):
            yield f"{name} is not as it was: {', '.join(changes)}"
        yield from _of_routes(setup, list(here))


def _changes(was: Present, one: Present) -> Iterator[str]:
    before, after = _words(was), _words(one)
    for word in before:
        if before[word] != after[word]:
            yield f"{word} was {before[word]} and is {after[word]}"
    if was.left[1] and one.deprecated:
        yield "it is deprecated, so that this host goes on with another one for connections of its own"
    if abs(was.left[0] - one.left[0]) > TOLERANCE_S:
        yield f"valid {_time(one.left[0])}, not {_time(was.left[0])}"


def _words(one: Present) -> dict[str, str]:
    return {
        "prefix length": str(one.prefix_length),
        "scope": str(one.scope),
        "label": one.label or "none",
        "broadcast address": one.broadcast or "none",
        "peer": one.peer or "none",
        "metric": str(one.metric or "none"),
        "protocol": str(one.protocol or "none"),
        "flags": " ".join(name for flag, name in GIVEN.items() if one.flags & flag) or "none",
    }


def _of_routes(setup: Setup, here: list[Route]) -> Iterator[str]:
    for route in setup.routes:
        if route not in here:
            yield f"a route by {setup.device} is gone: {route}"
    for route in here:
        if route not in setup.routes:
            yield f"a route by {setup.device} has come: {route}"


def _time(seconds: int) -> str:
    return "for ever" if seconds == FOR_EVER else f"for {seconds} s"
