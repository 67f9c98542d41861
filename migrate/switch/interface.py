"""The addresses are on an interface of the tree's own, on both hosts: one of the two is mute, and the other speaks.

An engine of containers makes the network of a container anew where that is restored, with the same addresses, and
the same hardware address. Nothing is taken away from either host: what leaves the interface is dropped, of any
protocol, so that nobody hears of it. Routes stay as they are.

Everything is done in the network namespace of the container. The table is ``netdev migrate-ID``. Source: nft(8),
ADDRESS FAMILIES, netdev, hook egress (Linux 5.16).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from typing import Any

from migrate.errors import SwitchError
from migrate.switch import Address
from migrate.switch.announce import announce, open_sender
from tcpcp.errors import IsolationError
from tcpcp.kernel import nft

KIND = "interface"
#: How long the destination speaks without a renewal, before COMMIT; and how often that is renewed.
LEASE_S, RENEW_S = 5, 1.0
#: Becomes a part of a rule.
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_ID = re.compile(r"[0-9a-f]+")


class OwnInterface:
    """Either host's part. See :class:`migrate.switch.Switch`."""

    def __init__(self, role: str, migration_id: str, addresses: list[Address]) -> None:
        self.role, self.migration_id, self.addresses = role, migration_id, addresses
        self._leased_at = 0.0

    @property
    def _devices(self) -> list[str]:
        return sorted({one.device for one in self.addresses})

    @property
    def _table(self) -> str:
        if not _ID.fullmatch(self.migration_id):
            raise SwitchError("not a migration's id")
        return f"netdev migrate-{self.migration_id}"

    def choose(self) -> None:
        """Make sure that the interfaces are there; find whoever announces."""
        for device in self._devices:
            _index(device)
            open_sender(device)

    def notes(self) -> list[str]:
        """Nothing."""
        return []

    def require_free(self) -> None:
        """Nothing: they are here, mute."""

    def prepare(self) -> None:
        """On the destination: nobody hears of the interfaces from now on, if that was not so before."""
        if self.role == "destination":
            self.mute()

    def mute(self) -> None:
        """Drop what leaves the interfaces. :raises SwitchError: this kernel cannot."""
        rules = [f"add table {self._table}", f"delete table {self._table}", f"add table {self._table}"]
        rules.append(f"add set {self._table} speaking {{ type iface_index; flags timeout; }}")
        for number, device in enumerate(self._devices):
            _index(device)
            chain = f"{self._table} out{number}"
            rules.append(
                f'add chain {chain} {{ type filter hook egress device "{device}" priority 0; policy drop; }}'
            )
            rules.append(f"add rule {chain} meta oif @speaking accept")
        _run("\n".join(rules))

    def switch(self) -> None:
        """At the origin: be mute. On the destination: speak, for some seconds, and say so."""
        if self.role == "origin":
            self.mute()
            return
        self._lease()
        self._announce()

    def renew(self) -> None:
        """Speak for some seconds more, if that is due."""
        if self.role == "destination" and time.monotonic() - self._leased_at >= RENEW_S:
            self._lease()

    def keep(self) -> None:
        """Speak for good."""
        if self.role == "destination":
            self._delete()

    def undo(self) -> None:
        """At the origin: speak again. On the destination: be mute, until it goes with the container."""
        if self.role == "destination":
            if self._table in _run("list tables"):  # else it has gone, with the namespace that we were in
                _run(f"flush set {self._table} speaking")
            return
        self._delete()
        self._announce()

    def remind(self) -> None:
        """Announce the origin's once more."""
        if self.role == "origin":
            self._announce()

    def changed(self) -> list[str]:
        """Nothing: what undo() deletes is all there was."""
        return []

    def verify(self) -> None:
        """Raise unless this host's part is in force."""
        mute = self._table in _run("list tables")
        if self.role == "origin" and not mute:
            raise SwitchError("the container's interface is not mute")
        if self.role == "destination" and mute and "expires" not in _run(f"list set {self._table} speaking"):
            raise SwitchError("the container's interface is mute")

    def details(self) -> dict[str, Any]:
        """See :class:`migrate.switch.Switch`."""
        return {
            "kind": KIND,
            "role": self.role,
            "migration_id": self.migration_id,
            "addresses": [[one.ip, one.prefix_length, one.device] for one in self.addresses],
        }

    def _lease(self) -> None:
        numbers = [_index(device) for device in self._devices]
        spoken = ", ".join(f"{number} timeout {LEASE_S}s" for number in numbers)
        _run(f"flush set {self._table} speaking\nadd element {self._table} speaking {{ {spoken} }}")
        self._leased_at = time.monotonic()

    def _delete(self) -> None:
        _run(f"add table {self._table}\ndelete table {self._table}")

    def _announce(self) -> None:
        for one in self.addresses:
            try:
                announce(one.device, ipaddress.ip_address(one.ip))
            except OSError as error:
                raise SwitchError(f"cannot announce {one.ip} on {one.device}: {error.strerror}") from error


def make(role: str, migration_id: str, addresses: list[Address], **_: Any) -> OwnInterface:
    """The object for the host *role*. Touches nothing."""
    return OwnInterface(role, migration_id, addresses)


def _index(device: str) -> int:
    try:
        if _DEVICE.fullmatch(device):
            return socket.if_nametoindex(device)
    except OSError:
        pass
    raise SwitchError(f"the container has no interface {device[:20]!r} here")


def _run(script: str) -> str:
    try:
        return nft.run(script)
    except IsolationError as error:
        raise SwitchError(f"the kernel's packet filter refused: {error}") from error
