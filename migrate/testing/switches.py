"""What every :class:`migrate.switch.Switch` must do, between two real hosts on one network.

The caller says how a host is entered and whether it answers; so it works for namespaces as well as for machines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from migrate import switch
from migrate.errors import SwitchError
from migrate.switch import Address, Switch
from tcpcp.endpoint.isolation import Flow

ROLES = ("origin", "destination")
ID = "0123456789ab"


@dataclass(frozen=True, slots=True)
class Case:
    """One way of switching, and two hosts, of which the origin has the addresses at first, and has them at the end.

    :ivar on: enters the host of that role as long as the block lasts.
    :ivar state: all of that host's that a switch could change, in any form; called on the host.
    :ivar bindable: whether sockets of that host can be bound to the addresses; called on the host.
    :ivar tell: the roles of the hosts whose part sees whether it is in force: one that does nothing, as the network
        alone is switched, has nothing to see.
    :ivar flows: connections on the addresses, for a way that takes these.
    """

    kind: str
    addresses: Sequence[Address]
    on: Callable[[str], AbstractContextManager[object]]
    state: Callable[[], object]
    bindable: Callable[[], bool]
    tell: Sequence[str] = ROLES
    flows: Sequence[Flow] = ()

    def make(self, role: str, *addresses: Address) -> Switch:
        """One host's part, called on the host."""
        made = switch.make(self.kind, role, ID, list(addresses))
        switch.tell(made, self.flows)
        return made

    def states(self) -> list[object]:
        """Of both hosts."""
        found = []
        for role in ROLES:
            with self.on(role):
                found.append(self.state())
        return found


class _Moved:
    """Both hosts' parts, which take the steps that a migration takes, in its order."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.origin, self.destination = (self._made(role) for role in ROLES)
        self.steps: list[Callable[[], None]] = [
            self._choose,
            self._prepare,
            self._withdraw,
            self._answer,
            self._renew,
        ]

    def _made(self, role: str) -> Switch:
        with self.case.on(role):
            return self.case.make(role, *self.case.addresses)

    def parts(self) -> list[tuple[str, Switch]]:
        """As a rollback takes them: the destination first."""
        return [("destination", self.destination), ("origin", self.origin)]

    def _choose(self) -> None:
        before = self.case.states()
        with self.case.on("origin"):
            self.origin.choose()
            assert all(isinstance(note, str) for note in self.origin.notes())
        with self.case.on("destination"):
            self.destination.choose()
            self.destination.require_free()
        assert self.case.states() == before, "it changes nothing"

    def _prepare(self) -> None:
        with self.case.on("destination"):
            self.destination.prepare()
            assert self.case.bindable(), "the tree's sockets can be bound there"
            if "destination" in self.case.tell:
                _refuses(self.destination, "the destination does not answer yet")
        with self.case.on("origin"):
            assert self.case.bindable(), "nothing has happened here"

    def _withdraw(self) -> None:
        with self.case.on("origin"):
            if "origin" in self.case.tell:
                _refuses(self.origin, "the origin still answers")
            self.origin.switch()
            self.origin.verify()

    def _answer(self) -> None:
        with self.case.on("destination"):
            self.destination.switch()
            self.destination.verify()

    def _renew(self) -> None:
        with self.case.on("destination"):
            self.destination.renew()
            self.destination.renew()
            self.destination.verify()


def it_moves_and_moves_back(case: Case) -> None:
    """All steps, and in the end it stays; then the same from the other side."""
    before = case.states()
    moved = _Moved(case)
    for step in moved.steps:
        step()
    with case.on("destination"):
        moved.destination.keep()
        moved.destination.verify()
    for role, part in moved.parts():
        with case.on(role):
            part.undo()
    assert case.states() == before


def it_is_undone_from_any_point_by_somebody_else(case: Case) -> None:
    """Who undoes has its details alone, perhaps twice, and both hosts are as before."""
    before = case.states()
    for count in range(1, len(_Moved(case).steps) + 1):
        moved = _Moved(case)
        for step in moved.steps[:count]:
            step()
        said: list[str] = []
        for role, part in moved.parts():
            other = switch.from_details(json.loads(json.dumps(part.details())))
            with case.on(role):
                other.undo()
                other.undo()
                changed = other.changed()
                other.remind()
            said += changed
        assert case.states() == before, f"undone after {count} steps"
        assert said == [], "all is as it was"


def it_is_wholly_described_by_its_details(case: Case) -> None:
    """Which are JSON, and make an equal object."""
    for role in ROLES:
        with case.on(role):
            part = case.make(role, *case.addresses)
            part.choose()
        details = json.loads(json.dumps(part.details()))
        assert (details["kind"], details["role"], details["migration_id"]) == (case.kind, role, ID)
        assert [Address(*one) for one in details["addresses"]] == list(case.addresses)
        assert json.loads(json.dumps(switch.from_details(details).details())) == details


def it_does_nothing_without_addresses(case: Case) -> None:
    """A process may have none, and no connection."""
    before = case.states()
    for role in ROLES:
        with case.on(role):
            part = case.make(role)
            for step in (part.choose, part.require_free, part.prepare, part.switch, part.renew, part.keep):
                step()
            part.undo()
            part.remind()
            assert [*part.notes(), *part.changed()] == []
    assert case.states() == before


CHECKS: tuple[Callable[[Case], None], ...] = (
    it_moves_and_moves_back,
    it_is_undone_from_any_point_by_somebody_else,
    it_is_wholly_described_by_its_details,
    it_does_nothing_without_addresses,
)


def check(case: Case) -> None:
    """All of them."""
    for one in CHECKS:
        one(case)


def _refuses(part: Switch, what: str) -> None:
    try:
        part.verify()
    except SwitchError:
        return
    raise AssertionError(what)
