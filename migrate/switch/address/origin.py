"""The service address at the origin: withdrawn, or had again as it was."""

from __future__ import annotations

import ipaddress
from typing import Any

from migrate.errors import SwitchError
from migrate.switch import Address, netlink
from migrate.switch.announce import announce


class AtOrigin:
    """The origin's part. :meth:`choose` finds how the addresses are set up, so that undo can do it again.

    :param found: set-up of each address as ``choose`` found it; given when a guardian undoes.
    """

    def __init__(
        self, migration_id: str, addresses: list[Address], found: list[dict[str, Any]] | None = None
    ) -> None:
        self.migration_id = migration_id
        self.addresses = addresses
        self.found = found or []

    def choose(self) -> None:
        """Look at the addresses; refuse one whose removal would take others or routes with it."""
        if not self.addresses:
            return
        with netlink.route("look at this host's addresses") as handle:
            present = netlink.addresses(handle)
            self.found = [self._look(handle, address, present) for address in self.addresses]

    def require_free(self) -> None:
        """Nothing to do here: they are here."""

    def prepare(self) -> None:
        """Nothing to do here."""

    def switch(self) -> None:
        """Withdraw the addresses."""
        with netlink.route("withdraw the service address") as handle:
            for one in self.found:
                netlink.remove(handle, one["index"], one["ip"], one["prefix_length"])

    def renew(self) -> None:
        """Nothing to do here."""

    def keep(self) -> None:
        """Nothing to do here."""

    def undo(self) -> None:
        """Have the addresses again and announce them, if they had been withdrawn."""
        with netlink.route("give the service address back to this host") as handle:
            here = netlink.here(handle, [one["ip"] for one in self.found])
            for one in self.found:
                if one["ip"] not in here:
                    netlink.add(handle, one["index"], one["ip"], one["prefix_length"], **one["attributes"])
                announce(one["device"], ipaddress.ip_address(one["ip"]))

    def remind(self) -> None:
        """Announce those of the addresses that are here."""
        with netlink.route("look at this host's addresses") as handle:
            here = netlink.here(handle, [one["ip"] for one in self.found])
        for one in self.found:
            if one["ip"] in here:
                announce(one["device"], ipaddress.ip_address(one["ip"]))

    def verify(self) -> None:
        """Raise if an address is still here."""
        with netlink.route("look at this host's addresses") as handle:
            left = netlink.here(handle, [address.ip for address in self.addresses])
        if left:
            raise SwitchError(f"{', '.join(left)} still on this host")

    def details(self) -> dict[str, Any]:
        """See :class:`migrate.switch.Switch`."""
        return {
            "kind": "address",
            "role": "origin",
            "migration_id": self.migration_id,
            "addresses": [[one.ip, one.prefix_length, one.device] for one in self.addresses],
            "found": self.found,
        }

    def _look(self, handle: Any, address: Address, present: list[netlink.Present]) -> dict[str, Any]:
        mine = [one for one in present if str(one.ip) == address.ip]
        if not mine:
            raise SwitchError(f"{address.ip} is not on this host")
        one = mine[0]
        self._refuse_if_others_depend(handle, one, present)
        attributes: dict[str, Any] = {"scope": one.scope}
        if one.ip.version == 4:
            attributes |= {"label": one.label or one.device}
            if one.broadcast:
                attributes["broadcast"] = one.broadcast
        else:
            attributes["flags"] = one.flags & netlink.IFA_F_NOPREFIXROUTE
            attributes |= netlink.DEPRECATED if one.deprecated or self._stands_back(one, present) else {}
        return {
            "ip": address.ip,
            "prefix_length": one.prefix_length,
            "index": one.index,
            "device": one.device,
            "attributes": attributes,
        }

    @staticmethod
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

    @staticmethod
    def _refuse_if_others_depend(handle: Any, one: netlink.Present, present: list[netlink.Present]) -> None:
        routes = netlink.routes_from(handle, str(one.ip))
        if routes:
            raise SwitchError(
                f"routes of this host use {one.ip} as their source: {', '.join(routes)}",
                hint="Change those routes to another source address, then try again.",
            )
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
