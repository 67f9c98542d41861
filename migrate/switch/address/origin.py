"""The service address at the origin: withdrawn, or had again as it was."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from migrate.errors import SwitchError
from migrate.switch import Address, netlink, routes
from migrate.switch.address.differences import differences
from migrate.switch.address.setup import Setup, goes_along
from migrate.switch.announce import announce
from migrate.switch.routes import Route

#: So many routes are named in one sentence.
_MOST_NAMED = 5
_LENT = (
    "has a lifetime here: who renews it (a DHCP client, router advertisements) will add it again after the move,"
    " unless told to leave it alone; and nobody does on the destination, where it is for good"
)


class AtOrigin:
    """The origin's part. :meth:`choose` finds how the addresses are set up, so that undo can do it again.

    :param found: set-up of each address as ``choose`` found it; given when a guardian undoes.
    """

    def __init__(
        self, migration_id: str, addresses: list[Address], found: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        self.migration_id = migration_id
        self.addresses = addresses
        self._found = [Setup.read(one) for one in found]

    def choose(self) -> None:
        """Look at the addresses; refuse one whose removal would take others or routes with it."""
        if not self.addresses:
            return
        with netlink.route("look at this host's addresses"):
            present = netlink.addresses()
            self._found = [self._look(address, present) for address in self.addresses]

    def require_free(self) -> None:
        """Nothing to do here: they are here."""

    def prepare(self) -> None:
        """Nothing to do here."""

    def switch(self) -> None:
        """Withdraw the addresses."""
        with netlink.route("withdraw the service address"):
            for one in self._found:
                netlink.remove(one.index, one.ip, one.prefix_length, one.peer)

    def renew(self) -> None:
        """Nothing to do here."""

    def keep(self) -> None:
        """Nothing to do here."""

    def undo(self) -> None:
        """Have the addresses again and announce them, if they had been withdrawn."""
        with netlink.route("give the service address back to this host"):
            here = netlink.here([one.ip for one in self._found])
            had = [one for one in self._found if one.ip in here or not one.ended]
            for one in had:
                if one.ip not in here:
                    one.have_again()
                one.make_routes()
                announce(one.device, ipaddress.ip_address(one.ip))
            for one in had:
                if one.ip not in here:
                    one.tidy()

    def remind(self) -> None:
        """Announce those of the addresses that are here."""
        with netlink.route("look at this host's addresses"):
            here = netlink.here([one.ip for one in self._found])
        for one in self._found:
            if one.ip in here:
                announce(one.device, ipaddress.ip_address(one.ip))

    def notes(self) -> list[str]:
        """Addresses that this host has only for a while."""
        lent = [one.ip for one in self._found if one.until is not None and one.until.valid is not None]
        return [f"{ip} {_LENT}" for ip in lent]

    def changed(self) -> list[str]:
        """Addresses, and routes that they had."""
        with netlink.route("look at this host's addresses"):
            present = netlink.addresses()
            return [said for one in self._found for said in differences(one, present, one.routes_here())]

    def verify(self) -> None:
        """Raise if an address is still here."""
        with netlink.route("look at this host's addresses"):
            left = netlink.here([address.ip for address in self.addresses])
        if left:
            raise SwitchError(f"{', '.join(left)} still on this host")

    def details(self) -> dict[str, Any]:
        """See :class:`migrate.switch.Switch`."""
        return {
            "kind": "address",
            "role": "origin",
            "migration_id": self.migration_id,
            "addresses": [[one.ip, one.prefix_length, one.device] for one in self.addresses],
            "found": [one.as_json() for one in self._found],
        }

    def _look(self, address: Address, present: list[netlink.Present]) -> Setup:
        mine = [one for one in present if str(one.ip) == address.ip]
        if not mine:
            raise SwitchError(f"{address.ip} is not on this host")
        one = mine[0]
        _refuse_if_addresses_depend(one, present)
        alone = one.ip.version == 4 and not self._staying(one, present)
        having = [one.ip.packed, one.network.network_address.packed]
        here = routes.present(one.family, [*having, routes.by(one.index)] if alone else having)
        _refuse_if_routes_depend(one, here, alone=alone)
        back = one.ip.version == 6 and _stands_back(one, present)
        return Setup.of(one, here, stands_back=back)

    def _staying(self, one: netlink.Present, present: list[netlink.Present]) -> bool:
        """Whether the address's interface has another one that does not move."""
        leaving = {address.ip for address in self.addresses}
        return any(
            (other.index, other.family) == (one.index, one.family) and str(other.ip) not in leaving
            for other in present
        )


def _stands_back(one: netlink.Present, present: list[netlink.Present]) -> bool:
    """Whether the host uses another IPv6 address, which stands before this one, for its own connections.

    An address that is added again comes first, and would be used then (net/ipv6/addrconf.c
    ipv6_link_dev_addr(), ipv6_dev_get_saddr()).
    """
    before = present[: present.index(one)]
    return any(
        (other.ip.version, other.index, other.scope, other.deprecated) == (6, one.index, one.scope, False)
        for other in before
    )


def _refuse_if_routes_depend(one: netlink.Present, here: list[Route], *, alone: bool) -> None:
    """What calls itself the kernel's, of the address's own interface, is a part of having the address.

    :param alone: the interface has no other address that stays, and without any it loses all routes
        (net/ipv4/fib_frontend.c fib_inetaddr_event()).
    """
    others = [route for route in here if (route.index, route.protocol) != (one.index, routes.KERNEL)]
    if using := [route for route in others if route.source == one.ip.packed]:
        raise SwitchError(
            f"routes of this host use {one.ip} as their source: {_some(using)}",
            hint="Change those routes to another source address, then try again.",
        )
    kept = [route for route in here if route.protocol == routes.KERNEL and goes_along(one, route)]
    by_it = [route for route in here if route.index == one.index and route not in kept]
    if alone and by_it:
        raise SwitchError(
            f"{one.ip} is the only IPv4 address of {one.device}, and without one the kernel would remove the routes"
            f" by it: {_some(by_it)}",
            hint=f"Give {one.device} an address of its own, or remove those routes, then try again.",
        )


def _some(found: list[Route]) -> str:
    more = len(found) - _MOST_NAMED
    return ", ".join(map(str, found[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def _refuse_if_addresses_depend(one: netlink.Present, present: list[netlink.Present]) -> None:
    dependants = [
        str(other.ip)
        for other in present
        if one.ip.version == 4
        and not one.flags & netlink.IFA_F_SECONDARY
        and other.index == one.index
        and other.network == one.network
        and other.flags & netlink.IFA_F_SECONDARY
    ]
    if dependants:
        raise SwitchError(
            f"{one.ip} is the primary address of {one.device}: removing it would remove "
            f"{', '.join(dependants)} too",
            hint="Add the service address after the host's own, so that it is a secondary one.",
        )
