"""The parts of the two hosts in changing a route of the gateway."""

from __future__ import annotations

from typing import Any

from migrate.errors import SwitchError
from migrate.switch import Address, netlink, silence
from migrate.switch.on_both import OnBoth
from migrate.switch.route import asked
from migrate.switch.route.asked import Gateway


class _Host(OnBoth):
    """What they have in common.

    :param leads: of each address the next hop that is this host, and the one that was found; given when a guardian
        undoes.
    """

    def __init__(
        self, role: str, migration_id: str, addresses: list[Address], name: str, leads: Any = None
    ) -> None:
        super().__init__(f"route:{name}", role, migration_id, addresses)
        self._name = name
        self._leads: dict[str, list[str]] = dict(leads or {})

    def choose(self) -> None:
        """See :class:`migrate.switch.Switch`; connects to the gateway, for what is asked later."""
        super().choose()
        if not self.addresses:
            return
        gateway, here = self._gateway(), self._own()
        for one in self.addresses:
            self._require_silent(one.ip)
            hops = [hop for hop in gateway.hops if hop in here and (":" in hop) == (":" in one.ip)]
            if not hops:
                text = f"the gateway {self._name} may lead {one.ip} to no address of this host"
                hint = f"Name one there: migrate-agent --gateway --to ADDRESS {one.ip} (docs/switching.md)."
                raise SwitchError(text, hint=hint)
            found, used = gateway.look(one.ip)
            if used != found:
                text = f"the gateway {self._name} does not use its route to {one.ip} but sends to {used or 'none'}"
                hint = f"Look at its rules and tables: ip rule; ip route get {one.ip}"
                raise SwitchError(text, hint=hint)
            self._leads[one.ip] = [found if found in hops else hops[0], found]

    @staticmethod
    def _require_silent(ip: str) -> None:
        with netlink.route("look at how this host answers its neighbours"):
            if broken := silence.broken(ip):
                what, _, remedy = broken.partition(": ")
                raise SwitchError(
                    f"a neighbour of this host may find {ip} here: {what}", hint=f"Do: {remedy}"
                )

    def _gateway(self) -> Gateway:
        return asked.gateway(self._name)

    @staticmethod
    def _own() -> set[str]:
        with netlink.route("look at this host's addresses"):
            return {ip for ip, _ in netlink.places()}

    def details(self) -> dict[str, Any]:
        """See :class:`migrate.switch.Switch`."""
        return super().details() | {"leads": self._leads}

    def _elsewhere(self, ip: str, found: str) -> SwitchError:
        hint = f"Look there who has changed it: ip route get {ip}"
        return SwitchError(f"the gateway {self._name} leads {ip} to {found or 'nobody'}", hint=hint)


class AtOrigin(_Host):
    """The origin's part: it looks, and has the routes again."""

    def __init__(self, migration_id: str, addresses: list[Address], name: str, leads: Any = None) -> None:
        super().__init__("origin", migration_id, addresses, name, leads)

    def choose(self) -> None:
        """As of both hosts; refused as well if the route leads to another host."""
        super().choose()
        for ip, (own, found) in self._leads.items():
            if own != found:
                raise self._elsewhere(ip, found)

    def verify(self) -> None:
        """Raise unless the gateway can still be asked, and leads to one of the hosts that it may lead to.

        Whether it is the destination that host asks.
        """
        super().verify()
        for ip in self._leads:
            _, used = self._gateway().look(ip)
            if used not in self._gateway().hops:
                raise self._elsewhere(ip, used)

    def undo(self) -> None:
        """Have the routes lead here, if they lead to another one of the hosts."""
        for ip, (own, _) in self._leads.items():
            gateway = self._gateway()
            route, _ = gateway.look(ip)
            if route != own:
                gateway.lead(ip, route, own)


class AtDestination(_Host):
    """The destination's part: it has the routes lead to itself."""

    def __init__(self, migration_id: str, addresses: list[Address], name: str, leads: Any = None) -> None:
        super().__init__("destination", migration_id, addresses, name, leads)

    def choose(self) -> None:
        """As of both hosts; refused as well if the route leads here already, or to none of the hosts."""
        super().choose()
        for ip, (own, found) in self._leads.items():
            if own == found or found not in self._gateway().hops:
                raise self._elsewhere(ip, found)

    def switch(self) -> None:
        """Have the routes lead here."""
        for ip, (own, found) in self._leads.items():
            self._gateway().lead(ip, found, own)

    def verify(self) -> None:
        """Raise unless the gateway's kernel sends here what is for the addresses."""
        super().verify()
        for ip, (own, _) in self._leads.items():
            _, used = self._gateway().look(ip)
            if used != own:
                raise self._elsewhere(ip, used)

    def undo(self) -> None:
        """Have the routes lead to where they led, if they lead here."""
        for ip, (own, found) in self._leads.items():
            gateway = self._gateway()
            if gateway.look(ip)[0] == own:
                gateway.lead(ip, own, found)
