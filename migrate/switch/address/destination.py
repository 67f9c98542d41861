"""The service address on the destination: mute at first, leased until COMMIT, then for good."""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Any

from migrate.errors import SwitchError
from migrate.switch import Address, netlink
from migrate.switch.address.differences import gone
from migrate.switch.announce import announce, open_sender
from tcpcp.kernel import nft

#: How long the destination has the addresses without a renewal, before COMMIT; and how often it renews them.
LEASE_S, RENEW_S = 5, 1.0


class AtDestination:
    """The destination's part.

    :param placed: [ip, prefix length, index, device] of each address; given when a guardian undoes.
    """

    def __init__(
        self, migration_id: str, addresses: list[Address], placed: list[list[Any]] | None = None
    ) -> None:
        self.migration_id = migration_id
        self.addresses = addresses
        self.placed = placed or []
        #: Those to whose networks, as long as they are at the origin, the kernel has made no route here.
        self._apart: set[str] = set()
        #: When the addresses were leased last (time.monotonic()); 0: they are there for good.
        self._leased_at = 0.0

    def choose(self) -> None:
        """Find the interface for each address: the one with an address of the same network."""
        if not self.addresses:
            return
        with netlink.route("look at this host's addresses"):
            present = netlink.addresses()
        self.placed = [self._place(address, present) for address in self.addresses]
        own = (one for one in present if not one.flags & netlink.IFA_F_NOPREFIXROUTE)
        networks = {(one.index, one.network) for one in own}
        known = {one.ip for one in self.addresses if one.device}
        self._apart = {
            place[0]
            for place in self.placed
            if place[0] not in known and (place[2], _network(place)) not in networks
        }
        for *_, device in self.placed:
            open_sender(device)

    def require_free(self) -> None:
        """Raise if one of the addresses is here."""
        if not self.placed:
            return
        with netlink.route("look at this host's addresses"):
            _refuse_added(netlink.here([ip for ip, *_ in self.placed]))

    def prepare(self) -> None:
        """Add the addresses, mute."""
        if not self.placed:
            return
        nft.run(self._mute())
        with netlink.route("add the service address"):
            for ip, prefix_length, index, _ in self.placed:
                # The kernel must not choose it for new connections of others here: it may move on. An IPv4
                # address of a network that is there already is a secondary one, and never chosen.
                attributes: dict[str, Any] = {"flags": self._flags(ip)}
                attributes |= netlink.DEPRECATED if ":" in ip else {}
                netlink.add(index, ip, prefix_length, **attributes)

    def switch(self) -> None:
        """Answer for the addresses from now on, and announce them.

        :raises SwitchError: one is on another interface as well: after a rollback this host would still take
            packets for it, and answer them with a reset.
        """
        if not self.placed:
            return
        self._require_ours_alone()
        self._lease(LEASE_S)
        nft.run(self._unmute())
        self._announce()

    def _require_ours_alone(self) -> None:
        with netlink.route("look at this host's addresses"):
            present = netlink.places()
        ours = {ip: index for ip, _, index, _ in self.placed}
        _refuse_added({ip for ip, index in present if ours.get(ip, index) != index})

    def renew(self) -> None:
        """Have the addresses for some seconds more, if that is due."""
        if time.monotonic() - self._leased_at < RENEW_S:
            return
        self._lease(LEASE_S)

    def keep(self) -> None:
        """Have the addresses for good."""
        self._lease(netlink.FOR_EVER)

    def _lease(self, valid_s: int) -> None:
        """Have the addresses for *valid_s*; announce them again if they may have been lost meanwhile."""
        if not self.placed:
            return
        late = time.monotonic() - self._leased_at > LEASE_S
        with netlink.route("have the service address"):
            for ip, prefix_length, index, _ in self.placed:
                netlink.lease(index, ip, prefix_length, valid_s, self._flags(ip))
        self._leased_at, before = time.monotonic(), self._leased_at
        if before and late:
            self._announce()

    def _flags(self, ip: str) -> int:
        """No second route: where the host's own network is larger or smaller, it would use the address for what it
        sends by that one."""
        return netlink.IFA_F_NOPREFIXROUTE if ip in self._apart else 0

    def _announce(self) -> None:
        for ip, _, _, device in self.placed:
            try:
                announce(device, ipaddress.ip_address(ip))
            except OSError as error:
                raise SwitchError(f"cannot announce {ip} on {device}: {error.strerror}") from error

    def undo(self) -> None:
        """Remove the addresses, and the mute after them."""
        with netlink.route("remove the service address"):
            for ip, prefix_length, index, _ in self.placed:
                netlink.remove(index, ip, prefix_length)
        nft.run(self._unmute())

    def remind(self) -> None:
        """Nothing to say: the address is not here any more."""

    def notes(self) -> list[str]:
        """Nothing."""
        return []

    def changed(self) -> list[str]:
        """Nothing: the address was not here before."""
        return []

    def verify(self) -> None:
        """Raise unless every address is here and not mute."""
        with netlink.route("look at this host's addresses"):
            wanted = {address.ip for address in self.addresses}
            missing = wanted - netlink.here(wanted)
        if missing:
            text, hint = gone(missing, self.placed)
            raise SwitchError(text, hint=hint)
        if f"migrate-{self.migration_id}" in nft.run("list tables"):
            raise SwitchError("this host does not answer for the service address")

    def details(self) -> dict[str, Any]:
        """See :class:`migrate.switch.Switch`."""
        return {
            "kind": "address",
            "role": "destination",
            "migration_id": self.migration_id,
            "addresses": [[one.ip, one.prefix_length, one.device] for one in self.addresses],
            "placed": self.placed,
        }

    def _place(self, address: Address, present: list[netlink.Present]) -> list[Any]:
        ip = ipaddress.ip_address(address.ip)
        for one in present:
            if one.ip == ip:
                raise SwitchError(f"{ip} is already on this host")
        if address.device:
            return [address.ip, address.prefix_length, _index(address.device), address.device]
        for one in present:
            if one.ip.version == ip.version and ip in one.network and one.prefix_length < ip.max_prefixlen:
                return [address.ip, address.prefix_length, one.index, one.device]
        raise SwitchError(f"no interface of this host is on the network of {ip}")

    def _mute(self) -> str:
        """One chain for ARP, both directions; one that drops advertisements and solicitations for IPv6."""
        arp, inet = self._tables()
        rules = [f"add table {arp}", f"add table {inet}"]
        for hook in ("input", "output"):
            rules.append(f"add chain {arp} {hook} {{ type filter hook {hook} priority 0; }}")
            rules.append(f"add chain {inet} {hook} {{ type filter hook {hook} priority 0; }}")
        for ip, *_ in self.placed:
            if ":" not in ip:
                rules.append(f"add rule {arp} input arp daddr ip {ip} drop")
                rules.append(f"add rule {arp} output arp saddr ip {ip} drop")
                continue
            target = f"0x{int(ipaddress.IPv6Address(ip)):032x}"
            # The target address stands 8 bytes into both messages (RFC 4861 sections 4.3 and 4.4).
            rules.append(f"add rule {inet} input icmpv6 type nd-neighbor-solicit @th,64,128 {target} drop")
            rules.append(f"add rule {inet} output icmpv6 type nd-neighbor-advert @th,64,128 {target} drop")
        return "\n".join(rules)

    def _unmute(self) -> str:
        return "\n".join(f"add table {table}\ndelete table {table}" for table in self._tables())

    def _tables(self) -> tuple[str, str]:
        return f"arp migrate-{self.migration_id}", f"inet migrate-{self.migration_id}"


def _network(place: list[Any]) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    ip, prefix_length, *_ = place
    return ipaddress.ip_network((ip, prefix_length), strict=False)


def _index(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError as error:
        raise SwitchError(f"there is no interface {device} here") from error


def _refuse_added(taken: set[str]) -> None:
    """Raise if there are any: service addresses that somebody has added to this host."""
    if taken:
        text = f"{', '.join(sorted(taken))} was added to this host since the check"
        hint = "Look for who added it (ip monitor address), and remove it before another try."
        raise SwitchError(text, hint=hint)
