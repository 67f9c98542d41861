"""The destination's part of a forward: sockets on an address that this host has not, and never gets.

CRIU binds and connects a socket before it could be made transparent (ip(7)). For IPv4 its address has to be one of
this host's then. So it is on lo while CRIU builds the tree, behind a route of the type ``throw``: no lookup of a
route finds it, nobody is answered for it, and this host goes on to reach the origin by it. To bind to it takes
``net.ipv4.ip_nonlocal_bind`` meanwhile. All three are taken back before the process is given away.

Source: net/ipv4/route.c ip_route_output_key_hash_rcu(); net/ipv4/af_inet.c inet_addr_valid_or_nonlocal().
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from migrate.errors import SwitchError
from migrate.switch import Address, netlink
from migrate.switch.forward import home, listed, packet_filter, paths, rules
from tcpcp.endpoint.isolation import Flow
from tcpcp.record.ici import Ici

_TRIAL = "0" * 12
_NONLOCAL = Path("/proc/sys/net/ipv4/ip_nonlocal_bind")


_run = functools.partial(
    packet_filter.run, needs="It needs NFT_SOCKET and NFT_REJECT_INET in the kernel (modprobe nft_socket)."
)


class AtDestination:
    """The destination's part.

    :param via: its own address, if the origin has told.
    :param nonlocal_bind: whether it was allowed before; given when a guardian undoes.
    :param ends: IDs of forwards of this host of which connections come home; given when a guardian undoes.
    :param own: addresses of this host, at which these are; given when a guardian undoes.
    """

    def __init__(
        self,
        migration_id: str,
        addresses: list[Address],
        via: str = "",
        nonlocal_bind: bool = False,
        ends: Iterable[str] = (),
        own: Iterable[str] = (),
    ) -> None:
        self.migration_id, self.addresses, self.via = migration_id, addresses, via
        self._device, self._nonlocal = "", nonlocal_bind
        self._here = {ipaddress.ip_address(one) for one in own}
        self._own = {ipaddress.ip_address(one.ip) for one in addresses} - self._here
        self._flows: list[Flow] = []
        self._ends, self._back = list(ends), dict[str, list[Flow]]()

    def connections(self, flows: Iterable[Flow]) -> None:
        """See :class:`migrate.switch.ByConnection`."""
        told = list(flows)
        self._flows = [one for one in told if one.local.ip in self._own]
        self._back = home.by_forward("netdev", (one for one in told if one.local.ip in self._here))
        self._ends = list(self._back)
        self._nonlocal = _NONLOCAL.read_text().strip() != "0"

    def marked(self, icis: Iterable[Ici]) -> list[Ici]:
        """See :class:`migrate.switch.ByConnection`: those on the addresses are transparent, and at home no more."""
        needed = dict.fromkeys(self._own, 1) | dict.fromkeys(self._here, 0)
        return [
            dataclasses.replace(one, options={**one.options, "IP_TRANSPARENT": needed[one.local.ip]})
            if one.local.ip in needed
            else one
            for one in icis
        ]

    def choose(self) -> None:
        """Find the interface of the segment, and whether the kernel can."""
        if not self.addresses:
            return
        listed.sweep()
        with netlink.route("look at this host's addresses"):
            present = netlink.addresses()
        self._here = {one.ip for one in present}.intersection(
            ipaddress.ip_address(a.ip) for a in self.addresses
        )
        self._own -= self._here
        if not self._own:
            return
        devices = {self._on_segment(ip, present) for ip in self._own}
        if len(devices) != 1:
            raise SwitchError("the addresses are on several networks: that cannot be forwarded")
        (self._device,) = devices
        _run(f"{rules.at_destination(_TRIAL, [], [])}\ndelete table inet {rules.name(_TRIAL)}")

    def _on_segment(self, ip: Any, present: list[netlink.Present]) -> str:
        for one in present:
            if one.ip.version == ip.version and ip in one.network and one.prefix_length < ip.max_prefixlen:
                return one.device
        hint = "Choose a host on the same network."
        raise SwitchError(f"no interface of this host is on the network of {ip}", hint=hint)

    def notes(self) -> list[str]:
        """Nothing."""
        return []

    def require_free(self) -> None:
        """Raise if one of the addresses is here."""
        with netlink.route("look at this host's addresses"):
            found = netlink.here(map(str, self._own))
        if found:
            text = f"{', '.join(sorted(found))} was added to this host since the check"
            raise SwitchError(text, hint="Look for who added it (ip monitor address), and remove it.")

    def prepare(self) -> None:
        """Have packets find the sockets; allow to bind to the addresses, which nobody is answered for."""
        if not self._flows:
            return
        _run(rules.at_destination(self.migration_id, sorted(map(str, self._own)), self._flows))
        with paths.asked("prepare the way of forwarded connections") as handle:
            for ip in map(str, self._own):
                paths.add(handle, self.migration_id, ip, self._device)
                handle.route("add", **paths.thrown(ip))
                netlink.add(paths.LOOPBACK, ip, 32, scope=paths.HOST)
        if not self._nonlocal:
            _NONLOCAL.write_text("1\n")

    def switch(self) -> None:
        """What only CRIU needed is taken back: the sockets are transparent by now."""
        home.take(self._back)
        if self._flows:
            self._take_back()

    def _take_back(self) -> None:
        with paths.asked("remove the address of forwarded connections") as handle:
            for ip in map(str, self._own):
                netlink.remove(paths.LOOPBACK, ip, 32)  # first: without the route it would be found
                paths.gone(handle.route, "del", **paths.thrown(ip))
        if not self._nonlocal:
            _NONLOCAL.write_text("0\n")

    def renew(self) -> None:
        """Nothing: what comes here is for the origin to say."""

    def keep(self) -> None:
        """It holds; what has come home is forgotten."""
        home.forget("netdev", self._back)

    def undo(self) -> None:
        """Remove all of it."""
        home.give_up(self._ends)
        if not self._own:
            return
        self._take_back()
        _run(rules.deletion("inet", self.migration_id))
        with paths.asked("remove the way of forwarded connections") as handle:
            for ip in map(str, self._own):
                paths.remove(handle, self.migration_id, ip)

    def remind(self) -> None:
        """Nothing: nobody was told."""

    def changed(self) -> list[str]:
        """Nothing: what undo() removes was not there before."""
        return []

    def verify(self) -> None:
        """Raise unless packets find the sockets, and the addresses are not here."""
        if not self._flows:
            return
        if f"inet {rules.name(self.migration_id)}\n" not in _run("list tables"):
            raise SwitchError("packets that are forwarded do not find their sockets on this host")
        with netlink.route("look at this host's addresses"):
            if left := netlink.here(map(str, self._own)):
                raise SwitchError(f"{', '.join(sorted(left))} is still on this host")

    def details(self) -> dict[str, Any]:
        """See :class:`migrate.switch.Switch`."""
        return {
            "kind": f"forward:{self.via}" if self.via else "forward",
            "role": "destination",
            "migration_id": self.migration_id,
            "addresses": [[one.ip, one.prefix_length, one.device] for one in self.addresses],
            "nonlocal_bind": self._nonlocal,
            "ends": self._ends,
            "own": sorted(map(str, self._here)),
        }
