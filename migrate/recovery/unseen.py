"""Copies that a migration keeps frozen on this host although its journal is not seen here.

Either something is mounted over the directory of the journals, or the journal was removed and nobody lives who
could put it back. What holds the copy is a cgroup, which bears the migration's ID and outlives all of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from migrate import host_name, place
from migrate.errors import Reason
from migrate.processes import freezer
from migrate.report.report import Outcome, Report

_PREFIX = "migrate-"
_GUARDIAN = b"migrate.recovery.guardian"


@dataclass(frozen=True, slots=True)
class Held:
    """Processes *pids* in the frozen cgroup *path*, of the migration *migration_id*."""

    migration_id: str
    path: Path
    pids: tuple[int, ...]

    @property
    def text(self) -> str:
        """What it is, in a sentence."""
        copies = ", ".join(f"PID {pid}" for pid in self.pids)
        return (
            f"migration {self.migration_id}, whose journal is not seen here, keeps {copies} still, by the frozen"
            f" cgroup {self.path}: a copy of a process that perhaps runs on another host"
        )

    @property
    def remedy(self) -> str:
        """What a person is to do."""
        return (
            f"If something is mounted over {place.STATE} or {place.STATE.parent} (findmnt -T {place.STATE}),"
            " unmount it and run migrate --recover. Else look on the other host, which"
            f" {place.log(self.migration_id)} names: if the process runs there, end the copy here (kill -9); if"
            f" not, echo 0 >{self.path}/cgroup.freeze"
        )


def all_of_this_host() -> Iterator[Held]:
    """Each of them, but for those of which a guardian lives."""
    for path in freezer.all_named(_PREFIX):
        if (one := _held(path)) is not None and not guarded(one.migration_id):
            yield one


def _held(path: Path) -> Held | None:
    migration_id = path.name.removeprefix(_PREFIX)
    if not place.valid_id(migration_id) or not freezer.is_frozen(path):
        return None
    pids = tuple(sorted(freezer.members([path])))
    if 0 in pids:  # of a PID namespace that is not ours, as all of it is
        return None
    # A host's cgroups are also those of its containers, where another migrate may have a /run of its own.
    roots = [Path("/"), *(Path(f"/proc/{pid}/root") for pid in pids)]
    journal = place.home(migration_id).relative_to("/") / "journal"
    seen = any((root / journal).exists() for root in roots)
    return Held(migration_id, path, pids) if pids and not seen else None


def guarded(migration_id: str) -> bool:
    """Whether a guardian of that migration lives on this host: it has the journal open, wherever its path leads."""
    words = [_GUARDIAN, os.fsencode(place.home(migration_id))]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == os.geteuid():
                said = (process / "cmdline").read_bytes().split(b"\0")
                if any(said[at : at + 2] == words for at in range(len(said))):
                    return True
    return False


def reason(pid: int) -> Reason | None:
    """Why process *pid* cannot be moved: it is such a copy."""
    path = freezer.frozen_by(pid)
    held = _held(path) if path is not None and path.name.startswith(_PREFIX) else None
    return Reason("in-doubt", "origin", held.text, held.remedy) if held is not None else None


def tell(report: Report) -> list[Held]:
    """Say in *report* what there is: a person has to decide."""
    found = list(all_of_this_host())
    for held in found:
        report.notes.append(held.text)
        report.instructions.append(held.remedy)
    if found:
        report.outcome, report.pid = Outcome.IN_DOUBT, found[0].pids[0]
        report.where = f"in doubt: frozen on {host_name.here()}, perhaps running on another host"
    return found
