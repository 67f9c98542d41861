"""How an address is set up: read at the origin, kept in the journal, and had again as it was.

With an address the kernel removes routes: that to its network, and all that have it as their source. The first one
it makes again with the address, the others nobody does; and not each that calls itself the kernel's is (those of
NetworkManager do, with addresses that are to have none: IFA_F_NOPREFIXROUTE). So all that the address could take
along are kept, and made again where they are missing.

A lifetime goes on while the address is away: what is kept is when it ends, by a clock that every process of this
boot has, and that goes on when the machine sleeps. An address that has ended meanwhile is not had again: the kernel
would have removed it too, and who had leased it to this host may have leased it to another one since.

Source: net/ipv4/devinet.c inet_rtm_newaddr(), net/ipv4/fib_frontend.c fib_del_ifaddr(), fib_inetaddr_event();
net/ipv6/addrconf.c inet6_addr_add(), inet6_addr_modify(), cleanup_prefix_route().
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from migrate.switch import netlink, routes
from migrate.switch.netlink import FOR_EVER, IFA_F_NODAD, IFA_F_NOPREFIXROUTE, Present
from migrate.switch.routes import Route

#: Of the route that the kernel makes to an IPv6 address's network (include/net/ip6_route.h IP6_RT_PRIO_ADDRCONF).
_METRIC = 256
#: So long is waited for the kernel to settle an address that needs no look for duplicates; it takes microseconds.
_SETTLED_S = 0.05


def now() -> float:
    """The moment, s; the same for every process of this boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Until:
    """When an address ends to be valid, and to be preferred, as :func:`now` counts; None: never."""

    valid: float | None
    preferred: float | None

    @classmethod
    def of(cls, left: tuple[int, int]) -> Self:
        """That of one with so much left, s."""
        valid, preferred = (None if s == FOR_EVER else now() + s for s in left)
        return cls(valid, preferred)

    @classmethod
    def read(cls, found: Any) -> Self:
        """It, of two numbers.

        :raises ValueError: they are none.
        """
        match found:
            case [None | int() | float() as valid, None | int() | float() as preferred]:
                moments = [one for one in (valid, preferred) if one is not None]
                if all(type(one) is not bool and 0 <= one < FOR_EVER for one in moments):
                    return cls(valid, preferred)
        raise ValueError("lifetimes make no sense")

    @property
    def over(self) -> bool:
        """Whether it is not valid any more, or is not in a moment."""
        return self.left[0] == 0

    @property
    def left(self) -> tuple[int, int]:
        """How much is left of both, whole seconds or FOR_EVER, as the kernel counts them."""
        moment = now()
        valid, preferred = (
            FOR_EVER if one is None else max(0, int(one - moment)) for one in (self.valid, self.preferred)
        )
        return valid, min(valid, preferred)


@dataclass(frozen=True, slots=True)
class Setup:
    """That of one address. Whoever notes one notes all; what a version before noted has no *until*.

    :ivar attributes: for :func:`migrate.switch.netlink.add`. Lifetimes are among them only if this host itself is
        not to choose the address any more.
    :ivar routes: those of its interface that the address could take along.
    :ivar unread: why what was noted beside the address cannot be read, or "".
    """

    ip: str
    prefix_length: int
    index: int
    device: str
    attributes: Mapping[str, Any]
    peer: str = ""
    until: Until | None = None
    routes: tuple[Route, ...] = ()
    unread: str = ""

    @classmethod
    def of(cls, one: Present, present: Iterable[Route], *, stands_back: bool) -> Self:
        """That of an address of this host.

        :param present: routes of this host.
        :param stands_back: this host is not to choose it any more for its own connections.
        """
        attributes: dict[str, Any] = {"scope": one.scope, "flags": one.flags & sum(netlink.GIVEN)}
        if one.ip.version == 4:
            attributes |= {"label": one.label or one.device}
            attributes |= {"broadcast": one.broadcast} if one.broadcast else {}
        attributes |= {"rt_priority": one.metric} if one.metric else {}
        attributes |= {"proto": one.protocol} if one.protocol else {}
        attributes |= netlink.DEPRECATED if one.deprecated or stands_back else {}
        taken = tuple(route for route in present if goes_along(one, route))
        place = (str(one.ip), one.prefix_length, one.index, one.device)
        # The kernel says of an IPv4 address that is there for good that it is preferred for ever, whatever it is.
        until = Until.of((one.left[0], 0 if one.deprecated else one.left[1]))
        return cls(*place, attributes, one.peer, until, taken)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """It, of a journal. What is wrong beside the address must not keep that away: it is told later."""
        known = (found["ip"], found["prefix_length"], found["index"], found["device"], found["attributes"])
        if "until" not in found:
            return cls(*known)
        try:
            if any(type(found["attributes"][name]) is not int for name in ("scope", "flags")):
                raise ValueError("attributes make no sense")
            peer = str(ipaddress.ip_address(found["peer"])) if found["peer"] else ""
            kept = tuple(map(routes.from_hex, found["routes"]))
            return cls(*known, peer, Until.read(found["until"]), kept)
        except (LookupError, TypeError, ValueError) as error:
            return cls(*known, unread=str(error) or type(error).__name__)

    def as_json(self) -> dict[str, Any]:
        """What :meth:`read` reads; of what that could not read nothing is kept."""
        known = {
            "ip": self.ip,
            "prefix_length": self.prefix_length,
            "index": self.index,
            "device": self.device,
        }
        known |= {"attributes": dict(self.attributes)}
        if self.until is None:
            return known
        until = [self.until.valid, self.until.preferred]
        return known | {"peer": self.peer, "until": until, "routes": [one.body.hex() for one in self.routes]}

    @property
    def ended(self) -> bool:
        """Whether the address is not valid any more."""
        return self.until is not None and self.until.over

    def have_again(self) -> None:
        """Add the address, which is not here, as it was; but for its routes, see :meth:`make_routes`.

        :raises OSError: it is not here.
        """
        netlink.add(self.index, self.ip, self.prefix_length, self.peer, **self._attributes())

    def tidy(self) -> None:
        """After :meth:`have_again` and what is in a hurry: take away what the address has too much.

        When it returns, an IPv6 address can be used, too: the kernel takes a moment for that.

        :raises OSError: the kernel does not say, or refuses it.
        """
        if self.until is None:
            return
        if ":" in self.ip and self._used() and not self.attributes["flags"] & IFA_F_NODAD:
            netlink.change(self.index, self.ip, self.prefix_length, self.peer, **self._attributes())
        if not self.attributes["flags"] & IFA_F_NOPREFIXROUTE:
            self._remove_routes()

    def _attributes(self) -> dict[str, Any]:
        """For the address from now on."""
        attributes = dict(self.attributes)
        if self.until is not None:
            valid, preferred = self.until.left
            preferred = min(preferred, attributes.get("preferred_lft", FOR_EVER))
            attributes |= {"valid_lft": max(valid, 1), "preferred_lft": preferred}
        return attributes

    def _used(self) -> bool:
        """Whether the kernel has seen that it need not look for duplicates: without the flag it would, before that.

        The route to an address is made when that is settled (net/ipv6/addrconf.c addrconf_dad_completed()).
        """
        ip = ipaddress.IPv6Address(self.ip)
        deadline = time.monotonic() + _SETTLED_S
        while not any(
            (one.table, one.network) == (routes.LOCAL, ipaddress.ip_network(ip))
            for one in routes.present(socket.AF_INET6, [ip.packed], self.index)
        ):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
        return True

    def make_routes(self) -> None:
        """Make those again that went with the address, which is here. What cannot be made is told later."""
        for route in self.routes:
            with contextlib.suppress(OSError):
                routes.make(route)

    def _remove_routes(self) -> None:
        """Remove what the kernel has made with the address, if somebody had removed or replaced that."""
        metric = self.attributes.get("rt_priority", 0) or (_METRIC if ":" in self.ip else 0)
        for route in self.routes_here():
            kernels = route.protocol == routes.KERNEL and (bool(route.source) or route.metric == metric)
            if kernels and route not in self.routes:
                with contextlib.suppress(OSError):
                    routes.remove(route)

    def routes_here(self) -> list[Route]:
        """Those of its interface that are here now, and could be among :attr:`routes`.

        :raises OSError: the kernel does not say.
        """
        one = self.expected()
        having = (one.ip.packed, one.network.network_address.packed)
        here = routes.present(one.family, having, self.index)
        return [route for route in here if goes_along(one, route)]

    def expected(self) -> Present:
        """The address as it should be here now."""
        return Present(
            ipaddress.ip_address(self.ip),
            self.prefix_length,
            self.index,
            self.device,
            self.attributes.get("flags", 0),
            self.attributes["scope"],
            self.attributes.get("label", ""),
            self.attributes.get("broadcast", ""),
            self.peer,
            self.attributes.get("rt_priority", 0),
            self.attributes.get("proto", 0),
            self.until.left if self.until is not None else (FOR_EVER, FOR_EVER),
        )


def goes_along(one: Present, route: Route) -> bool:
    """Whether a *route* of the address's interface may go with the address, or be made with it."""
    if route.index != one.index:
        return False
    return route.source == one.ip.packed or (not route.source and route.network == one.network)
