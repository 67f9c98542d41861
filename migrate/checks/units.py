"""Whether a unit of systemd can be moved, by what systemd says of it at the origin. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks.around import needs_new_pids
from migrate.checks.subject import DESTINATION, ORIGIN, Subject, names
from migrate.errors import Reason
from migrate.inventory import of_unit
from migrate.pb.session_pb2 import HostInventory, ProcessInventory, Unit

#: Those with one main process that systemd may be told of. Source: man systemd.service(5), Type=.
_TYPES = ("simple", "exec", "idle", "forking", "notify", "notify-reload")


def described(subject: Subject) -> Iterator[Reason]:
    """What it is that cannot be moved as a unit."""
    unit = subject.process.unit
    if not unit.name:
        return
    yield from _sandbox(unit)
    yield from _kind(unit)
    yield from _started_by_others(unit)
    if unit.others:
        text = f"{unit.name} has processes that its main process has not started: {names(unit.others)}"
        yield Reason(
            "unit-others", ORIGIN, text, "Have them end; only the main process moves, and all below it."
        )
    if needs_new_pids(subject.process, subject.destination):
        taken = names(map(str, sorted(subject.destination.taken_pids))) or "those above its kernel.pid_max"
        text = f"PIDs of {unit.name} are not to be had ({taken})"
        remedy = "End what has them there, or start the unit anew at the origin."
        yield Reason("unit-pids", DESTINATION, text, remedy)


def _sandbox(unit: Unit) -> Iterator[Reason]:
    directives = [f"{name}=" for name in of_unit.SANDBOX if name in unit.properties]
    if directives and (unit.namespaces or "DynamicUser=" in directives):
        kinds = names(unit.namespaces) or "no"
        text = f"{unit.name} has namespaces of its own ({kinds}), by {names(directives, most=8)}"
        remedy = (
            "Start it without: set these to no, or to nothing, in a drop-in (systemctl edit), and restart it."
        )
        yield Reason("unit-sandbox", ORIGIN, text, remedy)


def _kind(unit: Unit) -> Iterator[Reason]:
    said = unit.properties
    if said["Type"] not in _TYPES:
        text = f"{unit.name} is of Type={said['Type']}, and one of {', '.join(_TYPES)} can be moved as a unit"
        yield Reason("unit-type", ORIGIN, text, "Move its process by its PID, with --leave-supervisor.")
    if said["Transient"] == "yes":
        text = (
            f"{unit.name} is transient (systemd-run): there is no file of it that the destination could have"
        )
        yield Reason("unit-transient", ORIGIN, text, "Write a unit file, on both hosts, and start that.")
    if said["Delegate"] == "yes":
        text = f"{unit.name} has Delegate=, and keeps cgroups of its own, which do not move"
        yield Reason("unit-delegated", ORIGIN, text, "Start it without, if it needs none (systemctl edit).")
    if said["FreezerState"] != "running":
        how = said["FreezerState"] or "not to be frozen by this systemd, which is older than 246"
        text = f"{unit.name} is {how}"
        yield Reason("unit-frozen", ORIGIN, text, f"systemctl thaw {unit.name}, or another systemd.")


def _started_by_others(unit: Unit) -> Iterator[Reason]:
    said = unit.properties
    if sockets := [one for one in said["TriggeredBy"].split() if one.endswith(".socket")]:
        text = f"{unit.name} is started by {names(sockets)}, which would start it here again, and has its sockets"
        remedy = f"systemctl disable --now {' '.join(sockets)}, and have the unit open its sockets itself."
        yield Reason("unit-sockets", ORIGIN, text, remedy)
    for name, why in (
        ("UpheldBy", "would start it here again"),
        ("OnSuccess", "would be started by its end"),
    ):
        if said[name]:
            text = f"{names(said[name].split())} {why} ({name}= of {unit.name})"
            remedy = "Take that away (systemctl edit), and run systemctl daemon-reload."
            yield Reason("unit-triggers", ORIGIN, text, remedy)


def notes(process: ProcessInventory, destination: HostInventory) -> list[str]:
    """Return what will be different although it is no reason to refuse."""
    if not (name := process.unit.name):
        return []
    differs = (
        f"the files of {name} say something else on the destination: there it is what they say from then on"
    )
    return [differs] if destination.unit_differs else []
