"""How traffic is switched from one host to the other: one module each, one small protocol.

There is one object on each host. Both are made before anything is frozen; what they need for an undo is in
:meth:`Switch.details`, so that a guardian can undo the work of a driver or agent that died.

One is named as in ``migrate --switch``: by its name alone, or with a colon and what it wants to know behind it.
``forward+KIND`` is two of them in one move (:mod:`migrate.switch.together`).

Other packages add theirs to the group :data:`GROUP` of entry points, each a :class:`Kind`; they are needed on both
hosts. :mod:`migrate.testing.switches` says whether one keeps what is promised here; ``examples/switch_told`` is
such a package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from migrate import limits, plugins, request
from migrate.errors import Problem, SwitchError

if TYPE_CHECKING:  # who starts has not to wait for the library
    from tcpcp.endpoint.isolation import Flow
    from tcpcp.record.ici import Ici

GROUP = "migrate.switches"
#: Ours, and what stands behind the colon; "" for nothing, in brackets if it need not.
OWN = {"address": "", "exec": "/COMMAND", "forward": "[ADDRESS]", "none": "", "route": "GATEWAY"}


@dataclass(frozen=True, slots=True)
class Address:
    """A service address.

    :ivar ip: e.g. ``"10.77.1.100"`` or ``"fd77:1::100"``.
    :ivar prefix_length: of its network, bits.
    :ivar device: interface it is on at the origin; on the destination the agent chooses one, unless it is said.
    :ivar stays: it is the origin's own: connections from it are forwarded, and it goes nowhere.
    """

    ip: str
    prefix_length: int
    device: str = ""
    stays: bool = False


class Switch(Protocol):
    """One host's part in pointing the network at the destination. Every method raises SwitchError."""

    def choose(self) -> None:
        """Find out what will have to be done and whether it can be; changes nothing."""

    def notes(self) -> list[str]:
        """After :meth:`choose`, on the origin: sentences, what the user should know although it is no reason to
        refuse."""

    def require_free(self) -> None:
        """On the destination, right before :meth:`prepare`: nobody has added one of the addresses since.

        After that an undo removes them, whoever they are of.
        """

    def prepare(self) -> None:
        """Make ready, without a change that another host could notice.

        On the destination: from now on sockets can be bound to the addresses, and nobody is answered.
        """

    def switch(self) -> None:
        """Do it. On the origin first: there is no moment in which both hosts answer."""

    def renew(self) -> None:
        """Between :meth:`switch` and :meth:`keep`, about every second while all is well.

        On the destination what :meth:`switch` does ends by itself some seconds after the last call: the host may
        stand still, and the origin have gone on without it.
        """

    def keep(self) -> None:
        """The process is given away: what :meth:`switch` has done stays for good."""

    def undo(self) -> None:
        """Put everything back, from whatever point, also in another process than prepare() ran in."""

    def remind(self) -> None:
        """Tell the network again what :meth:`undo` has told it, as far as it still holds here."""

    def changed(self) -> list[str]:
        """After :meth:`undo`: sentences, what is not as it was before. It may be asked for some time later."""

    def verify(self) -> None:
        """Raise unless this host's part is in force."""

    def details(self) -> dict[str, Any]:
        """What :func:`make` needs to build an equal object, as JSON types: ``kind``, ``role``, ``migration_id``,
        ``addresses`` as lists of the fields of :class:`Address`, and what else it wants to know."""


@runtime_checkable
class ByConnection(Protocol):
    """One host's part of a switch that takes connections to the destination, not addresses."""

    def connections(self, flows: Iterable[Flow]) -> None:
        """Which ones there are, of all addresses. Changes nothing.

        Those of the process, before :meth:`Switch.choose` is asked whether it could be; those of the frozen tree,
        before :meth:`Switch.details` are noted.

        :raises SwitchError: one of them cannot be taken there.
        """

    def marked(self, icis: Iterable[Ici]) -> list[Ici]:
        """On the destination: *icis* with what their sockets need there, before these run."""


class Kind(Protocol):
    """What makes the objects of one way of switching."""

    def __call__(self, role: str, migration_id: str, addresses: list[Address], **more: Any) -> Switch:
        """The object for the host *role*, ``"origin"`` or ``"destination"``. Touches nothing.

        :param more: what :meth:`Switch.details` had beside ``kind``, ``role``, ``migration_id`` and ``addresses``;
            and ``arguments``, what stands behind the colon, if there is one.
        """


def names() -> list[str]:
    """All that are known on this host."""
    return [*OWN, *plugins.names(GROUP)]


def make(kind: str, role: str, migration_id: str, addresses: list[Address], **more: Any) -> Switch:
    """The switch *kind* for the host *role*.

    :param kind: its name, and perhaps a colon and what it wants to know.
    :raises SwitchError: no such kind here, or what is behind the colon makes no sense.
    """
    forward, rest = request.apart(kind)
    if forward and rest:
        from migrate.switch import together

        return together.make(kind, role, migration_id, addresses, **more)
    name, colon, arguments = kind.partition(":")
    more |= {"arguments": arguments} if colon else {}
    wanted = OWN.get(name, "[]")
    if not wanted.startswith("[") and bool(wanted) != bool(arguments):
        raise SwitchError(f"--switch {name} is followed by {wanted or 'nothing'}, not by {arguments!r}")
    made: Kind = _own(name) or plugins.load(GROUP, name, tuple(OWN), SwitchError)
    try:
        return made(role, migration_id, addresses, **more)
    except TypeError as error:
        if name in OWN or not colon:
            raise
        raise SwitchError(f"--switch {name} is followed by nothing, not by {arguments!r}") from error


def _own(name: str) -> Kind | None:
    """One of ours, loaded when it is needed."""
    if name == "address":
        from migrate.switch import address

        return address.make
    if name == "exec":
        from migrate.switch import by_command

        return by_command.make
    if name == "route":
        from migrate.switch import route

        return route.make
    if name == "forward":
        from migrate.switch import forward

        return forward.make
    if name == "none":
        from migrate.switch import on_both

        return on_both.make
    if name == "interface":  # of a container's own alone, so it is nobody's to choose
        from migrate.switch import interface

        return interface.make
    return None


def late_s(kind: str) -> tuple[float, float]:
    """How long packets may go on coming to the origin when the process runs on the destination: until none has come
    for the first of both, and the second at most, s."""
    if "none" in request.ways(kind):
        return limits.UNSWITCHED_QUIET_S, limits.UNSWITCHED_S
    return limits.LATE_QUIET_S, limits.LATE_S


def tell(made: Switch, flows: Iterable[Flow]) -> None:
    """Tell it which connections there are, if it wants to know. :raises SwitchError: see :class:`ByConnection`."""
    if isinstance(made, ByConnection):
        made.connections(flows)


def look(kind: str, migration_id: str, address: Address, flows: Iterable[Flow] = ()) -> Problem | list[str]:
    """Why the origin cannot give *address* away by the switch *kind*; or what is to be known. Changes nothing.

    :param flows: connections that the process has.
    """
    try:
        made = make(kind, "origin", migration_id, [address])
        tell(made, flows)
        made.choose()
        return made.notes()
    except SwitchError as error:
        return error.problem


def from_details(details: Mapping[str, Any]) -> Switch:
    """The switch that :meth:`Switch.details` described.

    :raises SwitchError, LookupError, TypeError, ValueError: it is none that could be described so.
    """
    rest = dict(details)
    addresses = [Address(*one) for one in rest.pop("addresses")]
    return make(str(rest.pop("kind")), rest.pop("role"), rest.pop("migration_id"), addresses, **rest)
