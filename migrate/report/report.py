"""How a migration, a check or a recovery ended. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from migrate import problems
from migrate.errors import Exit, Problem, Reason, Refused
from migrate.report.timeline import Times
from migrate.states import Outcome as Outcome


@dataclass(slots=True, kw_only=True)
class Trace:
    """Which migration it is, and what is kept of it on the hosts.

    :ivar id: its name on both, "" where there is none (a recovery).
    :ivar began: UTC, as in the logs. :ivar program: what the process was called. :ivar addresses: those that move.
    :ivar switch: how traffic is switched, as in ``migrate --switch``; "" before the check has found out.
    :ivar hosts: role -> what the host is called, beside :attr:`Report.host`, the destination's.
    :ivar logs: role -> the directory of the log there, see :mod:`migrate.events`.
    """

    id: str = ""
    began: str = ""
    program: str = ""
    addresses: list[str] = field(default_factory=list)
    switch: str = ""
    hosts: dict[str, str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Sent:
    """How much went from host to host.

    :ivar image_bytes: of CRIU's images and the memory in them.
    :ivar gap_packets: packets of the peers that arrived at the origin meanwhile, and were taken along.
    :ivar gap_dropped: such packets that were too many.
    """

    connections: int = 0
    image_bytes: int = 0
    gap_packets: int = 0
    gap_dropped: int = 0


@dataclass(slots=True, kw_only=True)
class Report:
    """How a migration, a check or a recovery ended.

    :ivar pid: the process on the origin; 0 where there is none (a recovery that found nothing).
    :ivar destination_pid: its PID on the destination; 0 unless it runs there.
    :ivar where: where it runs now, e.g. ``"runs on web1 as PID 4711"``.
    :ivar reasons: for a refusal: all of them.
    :ivar notes: other things worth a line, e.g. what a recovery found and did.
    :ivar instructions: for IN_DOUBT: what the user must look at and decide, line by line.
    """

    outcome: Outcome
    trace: Trace = field(default_factory=Trace)
    pid: int = 0
    host: str = ""
    destination_pid: int = 0
    where: str = ""
    sent: Sent = field(default_factory=Sent)
    times: Times = Times()
    error: Problem | None = None
    reasons: list[Reason] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)

    def fail(self, error: BaseException) -> None:
        """Record *error*, unless one is recorded: later ones are consequences. The outcome stays as it is."""
        if self.error is None:
            self.error = problems.of(error).at("", "origin")
            if isinstance(error, Refused):
                self.reasons = list(error.reasons)

    def host_of(self, role: str) -> str:
        """A host by its part in the migration and its name: the one that the user gave it, or its own."""
        name = self.trace.hosts.get(role) or (self.host if role == "destination" else "")
        return role if name in ("", role) else f"{role} {name}"

    @property
    def exit_status(self) -> Exit:
        """Where the process is, as an exit status; UNTOUCHED without an error is a passed check: 0."""
        if self.error is not None and self.error.bug:
            return Exit.BUG
        if self.outcome is Outcome.UNTOUCHED:
            if self.error is None:
                return Exit.MOVED
            return Exit.USAGE if self.error.kind == "UsageError" else Exit.UNTOUCHED
        return Exit[self.outcome.name]

    def as_json(self) -> dict[str, object]:
        """Return the last line of ``--json``; durations are rounded to microseconds."""
        return {
            "event": "report",
            "outcome": self.outcome.value,
            "exit_status": int(self.exit_status),
            "id": self.trace.id,
            "began": self.trace.began,
            "logs": self.trace.logs,
            "program": self.trace.program,
            "addresses": self.trace.addresses,
            "switch": self.trace.switch,
            "pid": self.pid,
            "host": self.host,
            "destination_pid": self.destination_pid,
            "where": self.where,
            "connections": self.sent.connections,
            "image_bytes": self.sent.image_bytes,
            "gap_packets": self.sent.gap_packets,
            "gap_dropped": self.sent.gap_dropped,
            "frozen_ms": round(self.times.frozen_ms, 3),
            "isolated_ms": round(self.times.isolated_ms, 3),
            "total_ms": round(self.times.total_ms, 3),
            "phases_ms": _rounded(self.times.phases_ms),
            "error": None if self.error is None else _error_json(self.error),
            "reasons": [{**dataclasses.asdict(one), "pids": list(one.pids)} for one in self.reasons],
            "notes": self.notes,
            "instructions": self.instructions,
        }


def _rounded(phases_ms: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        role: {name: round(duration, 3) for name, duration in phases.items()}
        for role, phases in phases_ms.items()
    }


def _error_json(error: Problem) -> dict[str, object]:
    return {
        "kind": error.kind,
        "phase": error.phase,
        "role": error.host,
        "message": error.text,
        "hint": error.hint,
        "details": list(error.details),
    }
