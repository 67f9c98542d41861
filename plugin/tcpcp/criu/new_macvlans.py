"""Macvlans that are new, from which no reset goes out: as :mod:`tcpcp.criu.new_ports`, where there is no bridge.

A runtime makes the macvlan in the container's network namespace, where nobody outside sees it, and gives it its
address before CRIU runs. But what it sends goes out by an interface of this host, from a hardware address that is
not that interface's own, and there the one answer is dropped that ends a connection. The kernel does it, before
anybody has looked: from the first such reset of an address on, for :data:`~tcpcp.criu.muting.NEW_S`; then they go
out as ever.

Who is known is forgotten when a macvlan comes to that interface, or goes: who comes back by the same address, moved
away and home again, is as new as before. What is ours, and what a bridge passes on, is not looked at.

One table ``netdev tcpcp-new-macvlans``. Source: nft(8); drivers/net/macvlan.c macvlan_queue_xmit(): the hook of the
interface below sees all but what goes to another macvlan of the same host; net/core/rtnetlink.c rtnetlink_event():
that interface is told of when another is linked to it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from tcpcp.criu import muting
from tcpcp.errors import IsolationError
from tcpcp.kernel import nft, routing

TABLE = "netdev tcpcp-new-macvlans"
_RTM_GETLINK, _IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER = 18, 1, 3, 10
_IFINFOMSG = struct.Struct("=BBHiII")
_ETHERNET, _ETHERNET_BYTES = 1, 6
#: One that nft would take for something else, with a quotation mark or a star, is nobody's choice.
_NAME = re.compile(rb"[!#-)+-~]+")
_ATTEMPTS = 5
_BEGIN = """
add set {t} known{i} {{ type ether_addr; size 4096; flags dynamic; }}
add set {t} young{i} {{ type ether_addr; size 4096; flags dynamic,timeout; }}
add chain {t} new{i}
add rule {t} new{i} ether saddr @young{i} drop
add rule {t} new{i} ether saddr @known{i} accept
add rule {t} new{i} add @known{i} {{ ether saddr }} add @young{i} {{ ether saddr timeout {s}s }} drop
add chain {t} sent{i} {{ type filter hook egress device "{name}" priority 0; policy accept; }}
add rule {t} sent{i} tcp flags & (rst | ack) == rst ether saddr != {own} meta l4proto @armed goto new{i}
"""
#: The kernel may have removed the chain with its interface; what is added is then removed.
_END = """
add chain {t} sent{i}
flush chain {t} sent{i}
delete chain {t} sent{i}
flush chain {t} new{i}
delete chain {t} new{i}
delete set {t} young{i}
delete set {t} known{i}
"""
_FORGET = "flush set {t} young{i}\nflush set {t} known{i}\n"


@dataclass(frozen=True, slots=True)
class _Lower:
    """An interface that a macvlan may send by: its name, and its own address."""

    name: str
    own: str


class NewMacvlans(muting.Muting):
    """The table, in the network namespace of the calling thread.

    :raises IsolationError: this kernel has no such filter, which came with Linux 5.16; then nothing was made.
    """

    WHO = "new macvlans"

    def __init__(self) -> None:
        self._lower = _lower_interfaces()
        super().__init__(TABLE, _changes({}, self._lower, set()))

    def look(self) -> float:
        """Note what is new. :return: as :meth:`tick`."""
        changed: set[int] | None = set()
        for attempt in range(_ATTEMPTS):
            also, there = self._changed(), _lower_interfaces()
            changed = None if changed is None or also is None else changed | also
            try:
                nft.run(_changes(self._lower, there, changed))
            except IsolationError:  # one that was there has gone
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                self._lower = there
                break
        return self.tick()


def _lower_interfaces() -> dict[int, _Lower]:
    """Those that are nobody's port: who has a master cannot have macvlans (netdev_rx_handler_register()).

    :raises OSError: the kernel does not say.
    """
    with routing.netlink() as asking:
        found = routing.whole(asking, bytes(_IFINFOMSG.size), _RTM_GETLINK, "interfaces")
    lower = {}
    for body in found:
        _, _, kind, index, _, _ = _IFINFOMSG.unpack_from(body)
        told = dict(routing.attributes(body, _IFINFOMSG.size))
        own, name = told.get(_IFLA_ADDRESS, b""), told.get(_IFLA_IFNAME, b"").rstrip(b"\0")
        ethernet = kind == _ETHERNET and len(own) == _ETHERNET_BYTES
        if ethernet and _NAME.fullmatch(name) and _IFLA_MASTER not in told:
            lower[index] = _Lower(name.decode(), own.hex(":"))
    return lower


def _changes(before: dict[int, _Lower], after: dict[int, _Lower], changed: set[int] | None) -> str:
    """What makes the table that is as of *before* as of *after*, in which who came by one of *changed* is new."""
    gone = [index for index, lower in before.items() if after.get(index) != lower]
    come = [index for index, lower in after.items() if before.get(index) != lower]
    stay = [index for index in after if index not in come and (changed is None or index in changed)]
    return "".join(
        [
            *(_END.format(t=TABLE, i=index) for index in gone),
            *(_FORGET.format(t=TABLE, i=index) for index in stay),
            *(
                _BEGIN.format(t=TABLE, i=index, name=lower.name, own=lower.own, s=muting.NEW_S)
                for index, lower in after.items()
                if index in come
            ),
        ]
    )
