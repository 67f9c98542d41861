"""A unit of systemd that is to be moved: found by its name, held before the freeze, and known as frozen in it."""

from __future__ import annotations

import dataclasses

from migrate.errors import Reason, Refused
from migrate.inventory import of_unit
from migrate.journal.journal import Journal
from migrate.processes import drop_in, leaving_unit, systemd
from migrate.recovery import entries
from migrate.request import Request
from migrate.runtime import Runtime
from migrate.runtime.unit import OfUnit


def resolved(request: Request) -> Request:
    """*request* with the PID of the main process of the unit that it names.

    :raises Refused: there is none.
    """
    if not (unit := request.named.unit):
        return request
    if not systemd.booted():
        text = f"the init of this host is not systemd, which would have {unit}"
        raise _refused("no-systemd", text, "Name the process by its PID.")
    said = of_unit.properties(unit)
    main, state = int(said.get("MainPID") or 0), said.get("ActiveState", "")
    if said.get("LoadState") != "loaded":
        text = f"systemd has no {unit} here ({said.get('LoadState') or 'no state'})"
        remedy = (
            "Look for its name: systemctl list-units --type service. Those of users are named by their PID."
        )
        raise _refused("no-such-unit", text, remedy)
    if not main or state != "active" or said.get("SubState") != "running":
        text = f"{unit} has no main process that runs: it is {state} ({said.get('SubState', '')})"
        raise _refused("unit-not-running", text, f"Start it, or look at systemctl status {unit}.")
    return dataclasses.replace(request, pid=main)


def _refused(code: str, text: str, remedy: str) -> Refused:
    return Refused([Reason(code, "origin", text, remedy)])


def hold(kept: Runtime, journal: Journal, host: str) -> None:
    """Before the freeze, if it is a unit: its end here will be no failure, and starts nothing.

    :raises MigrateError, OSError: the journal says what is to be undone.
    """
    if isinstance(kept, OfUnit):
        path = drop_in.place(kept.unit, journal.migration_id)
        journal.did(entries.AtUnit(kept.unit, str(path), host))
        leaving_unit.hold(kept.unit, path)


def frozen(kept: Runtime) -> None:
    """CRIU has frozen it: systemd knows, whose watchdog would end it else.

    :raises MigrateError, OSError: the journal says what is to be undone.
    """
    if isinstance(kept, OfUnit):
        leaving_unit.hold_watchdog(kept.unit, kept.cgroup)
