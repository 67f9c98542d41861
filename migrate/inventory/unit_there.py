"""What this host has against a unit of systemd that is to come: into the one of its name, which must be there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

from migrate.errors import MigrateError
from migrate.inventory import of_unit
from migrate.pb.session_pb2 import HostInventory, Refusal, Unit
from migrate.processes import freezer, systemd

_ENDED = ("inactive", "failed")


def answer(unit: Unit, found: HostInventory) -> None:
    """Add to *found* what speaks against *unit*, and whether its files say something else here."""
    try:
        found.refusals.extend(_refusals(unit))
        if not found.refusals:
            found.unit_differs = of_unit.digest(unit.name) != unit.files
    except MigrateError as error:
        found.refusals.append(Refusal(code="no-systemd", text=str(error), remedy=error.problem.hint))


def _refusals(unit: Unit) -> Iterator[Refusal]:
    if not systemd.booted():
        remedy = "Boot it with systemd, or move the process by its PID."
        yield Refusal(code="no-systemd", text="its init is not systemd", remedy=remedy)
        return
    said = of_unit.properties(unit.name)
    if (state := said.get("LoadState")) != "loaded":
        text = f"systemd has no {unit.name} there ({state or 'no state'})"
        remedy = "Install there what it belongs to, or its unit file, and do not start it."
        yield Refusal(code="no-unit", text=text, remedy=remedy)
        return
    yield from _as_it_is(unit.name, said)
    try:
        freezer.mount_point()
    except freezer.Unavailable as error:
        remedy = "Boot it with systemd.unified_cgroup_hierarchy=1."
        yield Refusal(code="cgroup-version", text=f"systemd has no cgroups of v2: {error}", remedy=remedy)
    if not shutil.which("sleep"):
        yield Refusal(code="no-sleep", text="sleep is not installed", remedy="Install coreutils.")


def _as_it_is(name: str, said: Mapping[str, str]) -> Iterator[Refusal]:
    if said.get("ActiveState") not in _ENDED:
        text = f"{name} is {said.get('ActiveState')} there"
        yield Refusal(
            code="unit-runs", text=text, remedy=f"systemctl stop {name}, if it is not needed there."
        )
    if sockets := [one for one in said.get("TriggeredBy", "").split() if one.endswith(".socket")]:
        text = f"{name} is started by {', '.join(sockets)} there, which would have the addresses that it listens on"
        remedy = f"systemctl disable --now {' '.join(sockets)}, and have the unit open its sockets itself."
        yield Refusal(code="unit-sockets", text=text, remedy=remedy)
    if directives := [word for word in of_unit.SANDBOX if word in said]:
        text = f"{name} has {', '.join(f'{one}=' for one in directives[:5])} there"
        remedy = "Move it by its PID; a unit with namespaces of its own cannot be moved as one yet."
        yield Refusal(code="unit-sandbox", text=text, remedy=remedy)
