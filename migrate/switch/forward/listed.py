"""The forwards of this host, as its kernel has them: listed, and removed when their connections have ended."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from migrate.errors import SwitchError
from migrate.switch.forward import packet_filter, paths, reserved, rules
from tcpcp.errors import IsolationError
from tcpcp.kernel import nft

_TABLE = re.compile(rf"table (netdev|inet) {rules.PREFIX}([0-9a-f]{{12}})\n")
_SET = re.compile(r"\tset (\w+) \{(.*?)\n\t\}", re.DOTALL)
_COUNTER = re.compile(r"\tcounter (\w+) \{\s+packets (\d+) bytes (\d+)")
_ENDS = re.compile(r"([0-9.]+) \. ([\w-]+) \. ([0-9.]+) \. ([\w-]+) timeout")
_TO = re.compile(r'comment "to ([0-9.]+)"')
_OWN = re.compile(r"\d+\.\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Forward:
    """One of them.

    :ivar id: of the migration. :ivar family: ``"netdev"`` at the origin, ``"inet"`` on the destination.
    :ivar to: at the origin: where they go. :ivar own: on the destination: the origin's addresses.
    :ivar ends: both ends of each connection, "ADDRESS:PORT", ours first. :ivar ports: reserved for it alone.
    :ivar there_bytes, back_bytes: what was sent on, at the origin.
    """

    id: str
    family: str
    to: str
    own: tuple[str, ...]
    ends: tuple[tuple[str, str], ...]
    ports: frozenset[int]
    there_bytes: int
    back_bytes: int


def present() -> list[Forward]:
    """All that are there, the ended ones too. :raises SwitchError: the kernel does not say."""
    try:
        found = _TABLE.findall(nft.run("list tables") + "\n")
        return [
            _read(family, id_, nft.run(f"list table {family} {rules.name(id_)}")) for family, id_ in found
        ]
    except IsolationError as error:
        raise SwitchError(f"the kernel's packet filter does not say: {error}") from error


def sweep() -> list[str]:
    """Remove those whose connections have all ended; their IDs. One that cannot be is left for the next time."""
    ended = []
    with contextlib.suppress(SwitchError):
        for one in present():
            if not one.ends:
                end(one)
                ended.append(one.id)
    return ended


def end(one: Forward) -> None:
    """Remove it, whether or not it has connections. :raises SwitchError: some of it may be left."""
    packet_filter.run(rules.deletion(one.family, one.id))
    if one.family == "netdev":
        others = (other.ports for other in present() if other.family == "netdev")
        try:
            reserved.remove(one.ports.difference(*others))
        except OSError as error:
            raise SwitchError(f"cannot give reserved ports back: {error.strerror}") from error
    with paths.asked("remove the way of forwarded connections") as handle:
        for ip in one.own:
            paths.remove(handle, one.id, ip)


def _read(family: str, id_: str, text: str) -> Forward:
    sets = dict(_SET.findall(text))
    counters = {name: int(size) for name, _, size in _COUNTER.findall(text)}
    to = _TO.search(text)
    return Forward(
        id_,
        family,
        to[1] if to else "",
        tuple(_OWN.findall(sets.get("own", ""))),
        tuple(_ends(sets.get("flows", ""))),
        frozenset(map(int, re.findall(r"\b\d+\b", sets.get("reserved", "").partition("elements")[2]))),
        counters.get("there", 0),
        counters.get("back", 0),
    )


def _ends(text: str) -> Iterator[tuple[str, str]]:
    for local, local_port, peer, peer_port in _ENDS.findall(text):
        yield f"{local}:{local_port}", f"{peer}:{peer_port}"
