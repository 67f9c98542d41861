"""Routes of this host as the kernel tells them, kept as they are, and made again: what ``ip route save`` does.

A route is kept as the bytes of its message: what the kernel tells of one it takes for another one like it, whatever
attributes it has (iproute2 ip/iproute.c restore_handler()). Left out of it is what counts or changes by itself.

Source: rtnetlink(7); net/ipv4/fib_semantics.c fib_dump_info(), fib_create_info(); net/ipv6/route.c rt6_fill_node().
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from tcpcp.kernel import routing

#: Who made a route: the kernel, or somebody who says that he is (include/uapi/linux/rtnetlink.h RTPROT_KERNEL).
KERNEL = 2
MAIN, LOCAL = 254, 255

_RTA_PRIORITY, _RTA_PREFSRC, _RTA_CACHEINFO, _RTA_TABLE = 6, 7, 12, 15
_ONLINK = 4
_APPEND = 0x800
#: Where in struct rta_cacheinfo it is told when the route ends, 0 for never.
_EXPIRES_AT = 8
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_NAMES = {KERNEL: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Route:
    """One of them; two are equal if the kernel tells the same of them.

    :ivar body: struct rtmsg and its attributes, in ascending order.
    """

    body: bytes

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.body[0]

    @property
    def protocol(self) -> int:
        """Who made it, RTPROT_*."""
        return self.body[5]

    @property
    def network(self) -> Network:
        """Where it leads."""
        packed = self._get(routing.RTA_DST) or bytes(16 if self.family == socket.AF_INET6 else 4)
        return ipaddress.ip_network((packed, self.body[1]))

    @property
    def source(self) -> bytes:
        """The address that this host has in what it sends by it; b"" if none is preferred."""
        return self._get(_RTA_PREFSRC)

    @property
    def index(self) -> int:
        """Of its interface; 0 if it has none, or several."""
        return self._number(routing.RTA_OIF)

    @property
    def table(self) -> int:
        """The routing table it is in."""
        return self._number(_RTA_TABLE) or self.body[4]

    @property
    def metric(self) -> int:
        """The lowest is preferred."""
        return self._number(_RTA_PRIORITY)

    def __str__(self) -> str:
        words = [str(self.network), f"proto {_NAMES.get(self.protocol, self.protocol)}"]
        words += [f"metric {self.metric}"] if self.metric else []
        words += [f"src {ipaddress.ip_address(self.source)}"] if self.source else []
        words += [f"table {self.table}"] if self.table != MAIN else []
        return " ".join(words)

    def _get(self, kind: int) -> bytes:
        return next((value for one, value in routing.attributes(self.body) if one == kind), b"")

    def _number(self, kind: int) -> int:
        value = self._get(kind)
        return int(routing.U32.unpack(value)[0]) if len(value) == routing.U32.size else 0


def from_hex(text: str) -> Route:
    """A route as :attr:`Route.body` says it, in hexadecimal.

    :raises ValueError: it is none.
    """
    body = bytes.fromhex(text)
    if len(body) < routing.RTMSG.size or body[0] not in (socket.AF_INET, socket.AF_INET6):
        raise ValueError("not a route")
    found = Route(body)
    if _told(body) != found or len(found.source) not in (0, 4, 16):
        raise ValueError("not a route as the kernel tells it")
    _ = found.network
    return found


def present(family: int, having: Collection[bytes], index: int = 0) -> list[Route]:
    """Those of this host, of all tables, but without those that end by themselves.

    :param having: only those whose bytes have one of these among them, an address for example: a host may have very
        many routes, and to look for some bytes is fast.
    :param index: of the interface whose routes are wanted; 0 for all.
    :raises OSError: the kernel does not say.
    """
    question = routing.RTMSG.pack(family, *[0] * 8) + (by(index) if index else b"")
    with routing.netlink() as asking:
        with contextlib.suppress(OSError):  # then the kernel looks at the interface itself, if it can
            asking.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        found = routing.whole(asking, question, routing.RTM_GETROUTE, "routes")
    some = (body for body in found if any(one in body for one in having))
    routes = (_told(body) for body in some if not _ends(body))
    return [one for one in routes if index in (0, one.index)]


def by(index: int) -> bytes:
    """What a route by that interface has among its bytes."""
    return routing.attribute(routing.RTA_OIF, routing.U32.pack(index))


def make(route: Route) -> None:
    """Make it, behind those that are as good; one that is there is left as it is.

    :raises OSError: the kernel refuses it.
    """
    routing.change(routing.RTM_NEWROUTE, routing.CREATE | _APPEND, route.body, (errno.EEXIST,))


def remove(route: Route) -> None:
    """Remove it; one that is not there is no error.

    :raises OSError: the kernel refuses to.
    """
    routing.change(routing.RTM_DELROUTE, 0, route.body, (errno.ESRCH,))


def _told(body: bytes) -> Route:
    """Without what the kernel does not take back, such as that the interface has no link at the moment."""
    *fields, flags = routing.RTMSG.unpack_from(body)
    kept = sorted(one for one in routing.attributes(body) if one[0] != _RTA_CACHEINFO)
    pieces = (routing.attribute(kind, value + bytes(-len(value) % 4)) for kind, value in kept)
    return Route(routing.RTMSG.pack(*fields, flags & _ONLINK) + b"".join(pieces))


def _ends(body: bytes) -> bool:
    """Whether it ends by itself: who told of it, a router, does so again and again."""
    for kind, value in routing.attributes(body):
        if kind == _RTA_CACHEINFO and len(value) >= _EXPIRES_AT + 4:
            return bool(struct.unpack_from("=i", value, _EXPIRES_AT)[0])
    return False
