"""The origin's part of a forward: it sends the packets of the connections on, to the destination and back."""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from migrate.errors import SwitchError
from migrate.switch import Address
from migrate.switch.forward import home, listed, packet_filter, paths, reserved, rules
from tcpcp.endpoint.isolation import Flow
from tcpcp.record.ici import Ici

#: None of it is ever in force: the kernel is asked whether it could be.
_TRIAL = "0" * 12


_run = functools.partial(
    packet_filter.run,
    needs="It needs NFT_FWD_NETDEV and NF_TABLES_NETDEV in the kernel (modprobe nft_fwd_netdev).",
)


class AtOrigin:
    """The origin's part.

    :param via: the destination's address, a neighbour's.
    :param ports: those that were reserved for it; given when a guardian undoes.
    """

    def __init__(
        self, migration_id: str, addresses: list[Address], via: str = "", ports: list[int] | None = None
    ) -> None:
        self.migration_id, self.addresses = migration_id, addresses
        #: Those of addresses that this host has not are forwarded to it, and go home.
        self._own = {ipaddress.ip_address(one.ip) for one in addresses if one.device}
        self._others = {ipaddress.ip_address(one.ip) for one in addresses} - self._own
        self.via = _checked(via) if self._own else via
        self._ports = ports or []
        self._flows: list[Flow] = []
        self._back: dict[str, list[Flow]] = {}

    def connections(self, flows: Iterable[Flow]) -> None:
        """See :class:`migrate.switch.ByConnection`. Those on the addresses are forwarded."""
        told = list(flows)
        self._flows = [one for one in told if one.local.ip in self._own]
        self._back = home.by_forward("inet", (one for one in told if one.local.ip in self._others))
        self._ports = reserved.missing(one.local.port for one in self._flows)

    def marked(self, icis: Iterable[Ici]) -> list[Ici]:
        """As they are: they are not built here."""
        return list(icis)

    def choose(self) -> None:
        """Find out whether it can be: the destination is a neighbour, the kernel can, and so can the way back."""
        if not self._own:
            return
        listed.sweep()
        device = self._device()
        hops = self._hops(device)
        table = f"netdev {rules.name(_TRIAL)}"
        script = rules.at_origin(_TRIAL, device, self.via, self._flows[:1], hops, ())
        _run(f"{script}\ndelete table {table}")

    def notes(self) -> list[str]:
        """What it means for this host."""
        if not self._own:
            return []
        own = ", ".join(sorted(map(str, self._own)))
        return [
            f"connections from {own} are forwarded by this host as long as they live: it has to stay up until then"
            " (migrate --forwards lists them)"
        ]

    def require_free(self) -> None:
        """Nothing is taken here."""

    def prepare(self) -> None:
        """Nothing: it comes into force as a whole."""

    def switch(self) -> None:
        """Forward them from now on. :raises SwitchError: nothing of it is in force but reserved ports."""
        if not self._flows:
            return
        device = self._device()
        try:
            reserved.add(self._ports)
        except OSError as error:
            raise SwitchError(f"cannot reserve local ports: {error.strerror}") from error
        hops = self._hops(device)
        _run(rules.at_origin(self.migration_id, device, self.via, self._flows, hops, self._ports))

    def renew(self) -> None:
        """Nothing: it holds."""

    def keep(self) -> None:
        """It holds; those that have gone home are forgotten."""
        home.forget("inet", self._back)

    def undo(self) -> None:
        """Forward no more."""
        if not self._own:
            return
        _run(rules.deletion("netdev", self.migration_id))
        try:
            reserved.remove(self._ports)
        except OSError as error:
            raise SwitchError(f"cannot give reserved ports back: {error.strerror}") from error

    def remind(self) -> None:
        """Nothing: nobody was told."""

    def changed(self) -> list[str]:
        """Nothing: what undo() removes was not there before."""
        return []

    def verify(self) -> None:
        """Raise unless they are forwarded."""
        if self._flows and f"netdev {rules.name(self.migration_id)}\n" not in _run("list tables"):
            raise SwitchError("this host does not forward the connections")

    def details(self) -> dict[str, Any]:
        """See :class:`migrate.switch.Switch`."""
        return {
            "kind": f"forward:{self.via}" if self.via else "forward",
            "role": "origin",
            "migration_id": self.migration_id,
            "addresses": [[one.ip, one.prefix_length, one.device] for one in self.addresses],
            "ports": self._ports,
        }

    def _device(self) -> str:
        """The interface of the segment. :raises SwitchError: the destination is no neighbour there."""
        hop, device = _next_hop(self.via)
        if hop != self.via:
            text = f"{self.via} is reached by {hop}, not on a network that both hosts are on"
            raise SwitchError(text, hint="Choose a host on the same network.")
        return device

    def _hops(self, device: str) -> dict[str, str]:
        """The next hop to each peer. :raises SwitchError: one is not reached by *device*."""
        found = {}
        for peer in sorted({str(one.peer.ip) for one in self._flows}):
            found[peer], by = _next_hop(peer)
            if by != device:
                text = f"{peer} is reached by {by}, and the destination by {device}: that cannot be forwarded"
                raise SwitchError(text, hint="Choose a host on the network by which its peers are reached.")
        return found


def _next_hop(ip: str) -> tuple[str, str]:
    """The next hop to *ip*, itself if it is a neighbour, and the name of the interface."""
    with paths.asked(f"find the way to {ip}") as handle:
        found = handle.route("get", dst=ip)[0]
    gateway, index = found.get_attr("RTA_GATEWAY"), found.get_attr("RTA_OIF")
    if found.get_attr("RTA_VIA"):
        raise SwitchError(f"the next hop to {ip} is an IPv6 address: that cannot be forwarded")
    try:
        device = socket.if_indextoname(index)
    except OSError as error:
        raise SwitchError(f"cannot find the way to {ip}: {error.strerror}") from error
    if '"' in device:
        raise SwitchError(f"the packet filter takes no interface of the name {device!r}")
    return str(gateway or ip), device


def _checked(via: str) -> str:
    try:
        return str(ipaddress.IPv4Address(via))
    except ValueError as error:
        raise SwitchError(f"--switch forward is followed by an IPv4 address, not by {via!r}") from error
