"""Interfaces of this host, and their addresses, as its kernel tells them: one question each, no policy.

Asked in bytes of our own. A library for all of rtnetlink takes longer to load than all the rest of a guardian, of
which two are started for each migration.

Source: rtnetlink(7); include/uapi/linux/if_link.h, if_addr.h; net/core/rtnetlink.c rtnl_fill_ifinfo(),
net/ipv4/devinet.c inet_fill_ifaddr(), net/ipv6/addrconf.c inet6_fill_ifaddr().
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from tcpcp.kernel import routing

#: struct ifaddrmsg: family, length of the prefix, flags, scope, interface; attributes follow.
IFADDRMSG = struct.Struct("=4BI")
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_CACHEINFO = 1, 2, 3, 4, 6
IFA_FLAGS, IFA_RT_PRIORITY, IFA_PROTO = 8, 9, 11
#: struct ifinfomsg: family, type, index, flags, what has changed of these; attributes follow.
_IFINFOMSG = struct.Struct("=BxHiII")
_IFLA_ADDRESS, _IFLA_IFNAME = 1, 3
_RTM_GETLINK = 18
_UP = 0x1


@dataclass(frozen=True, slots=True)
class Link:
    """An interface.

    :ivar raw_name: its name, to the kernel any bytes. :ivar flags: IFF_* bits. :ivar hardware: its address, or b"".
    """

    index: int
    raw_name: bytes
    flags: int
    hardware: bytes

    @property
    def name(self) -> str:
        """Its name as Python says names of the system."""
        return os.fsdecode(self.raw_name)

    @property
    def up(self) -> bool:
        """Whether somebody has switched it on."""
        return bool(self.flags & _UP)


@dataclass(frozen=True, slots=True)
class Told:
    """An address in the kernel's own words.

    :ivar attributes: IFA_* -> bytes.
    """

    family: int
    prefix_length: int
    scope: int
    index: int
    attributes: Mapping[int, bytes]

    @property
    def ip(self) -> str:
        """It, as text."""
        return socket.inet_ntop(self.family, self.attributes.get(IFA_LOCAL) or self.attributes[IFA_ADDRESS])

    def text(self, kind: int) -> str:
        """The attribute *kind* as text, "" if it is not told."""
        return os.fsdecode(self.attributes.get(kind, b"").rstrip(b"\0"))

    def ip_at(self, kind: int) -> str:
        """The attribute *kind* as an address, "" if it is not told."""
        packed = self.attributes.get(kind)
        return socket.inet_ntop(self.family, packed) if packed else ""

    def number(self, kind: int) -> int:
        """The attribute *kind* as a number, 0 if it is not told."""
        return int.from_bytes(self.attributes.get(kind, b""), sys.byteorder)


def links() -> list[Link]:
    """All interfaces, in the calling thread's network namespace. :raises OSError: the kernel does not say."""
    with routing.netlink() as asking:
        bodies = routing.whole(asking, bytes(_IFINFOMSG.size), _RTM_GETLINK, "interfaces")
    return [_link(body) for body in bodies]


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    told = dict(routing.attributes(body, _IFINFOMSG.size))
    return Link(index, told[_IFLA_IFNAME].rstrip(b"\0"), flags, told.get(_IFLA_ADDRESS, b""))


def addresses() -> list[Told]:
    """All addresses, IPv4 and IPv6, in the calling thread's network namespace.

    :raises OSError: the kernel does not say.
    """
    with routing.netlink() as asking:
        bodies = routing.whole(asking, bytes(IFADDRMSG.size), routing.RTM_GETADDR, "addresses")
    return [_told(body) for body in bodies if body[0] in (socket.AF_INET, socket.AF_INET6)]


def _told(body: bytes) -> Told:
    family, prefix_length, _, scope, index = IFADDRMSG.unpack_from(body)
    return Told(family, prefix_length, scope, index, dict(routing.attributes(body, IFADDRMSG.size)))
