"""The log of the migration that this process is at work on; whoever has something to tell calls :func:`tell`.

    with log.kept(migration_id, "origin") as kept:
        log.tell("began", pid=4711)
        with log.phase("freeze"):
            log.detail("journal", did="criu")
        log.ended("MOVED", "PID 4711 from a to b: MOVED")

It is there for everybody, as Python's own logging is, so that nobody has to hand it on. Where none is kept nothing
is written. No call waits, and none raises; what was lost is in ``kept.problem`` at the end.

Nothing of what the process holds is told: no memory, no bytes of its connections, no environment.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrate import place
from migrate.errors import Refused
from migrate.events import line, syslog
from migrate.events.writer import Writer

#: So much of each of CRIU's logs is kept.
MOST_CRIU_BYTES = 256 << 10
_ROLES = frozenset({"origin", "destination"})
_SEVERITY = {"MOVED": syslog.Severity.INFO, "IN_DOUBT": syslog.Severity.ERROR}


class Log:
    """That of one migration, see :func:`kept`.

    :ivar path: its directory, or "": nothing is written.
    :ivar phase, state: where the migration is.
    :ivar criu: where CRIU writes its own logs, or None.
    """

    def __init__(self, migration_id: str, role: str, *, wanted: bool) -> None:
        self.migration_id, self.role = migration_id, role
        self.phase = self.state = ""
        self.criu: Path | None = None
        known = role in _ROLES and place.valid_id(migration_id)
        self._writer = Writer(migration_id, f"{role}.jsonl") if wanted and known else None
        self.path = str(place.log(migration_id)) if self._writer else ""

    @property
    def problem(self) -> str:
        """A sentence: what was lost; "" for nothing, as far as that is known."""
        why = self._writer.problem if self._writer else ""
        return f"the log of this migration is lost, or a part of it: {why}" if why else ""

    def tell(self, event: str, level: int, what: dict[str, Any]) -> None:
        """See the functions of this module."""
        told = line.Event(
            time.time_ns(),
            time.monotonic_ns(),
            self.migration_id,
            self.role,
            _us.name,
            os.getpid(),
            self.phase,
            self.state,
            event,
            what,
        )
        if self._writer is not None:
            self._writer.put(lambda: line.to_json(told))
        if level <= _us.verbosity:
            _us.show(line.to_text(told))

    def keep_criu_logs(self) -> None:
        """Keep what CRIU has written so far."""
        if self._writer is None or self.criu is None:
            return
        for path in sorted(self.criu.glob("*.log")):
            with contextlib.suppress(OSError), path.open("rb") as file:
                if data := file.read(MOST_CRIU_BYTES):
                    self._writer.put_beside(f"{self.role}-criu-{path.name}", data)

    def close(self) -> None:
        """Nothing can be told afterwards."""
        if self._writer is not None:
            self._writer.close()


def _nobody(_: str) -> None:
    """Nobody looks on."""


@dataclass(slots=True)
class _Us:
    """This process.

    :ivar logs: those under way, the innermost last: in the middle of one an earlier one may be settled.
    """

    name: str = "migrate"
    verbosity: int = 0
    show: Callable[[str], None] = _nobody
    logs: list[Log] = field(default_factory=list)


_us = _Us()


def called(name: str) -> None:
    """This process is the program *name*."""
    _us.name = name


def shown(show: Callable[[str], None], verbosity: int) -> None:
    """From now on have *show* called with events as text: the main ones from a *verbosity* of 1, all from 2."""
    _us.show, _us.verbosity = show, verbosity


@contextlib.contextmanager
def kept(migration_id: str, role: str, *, wanted: bool = True) -> Generator[Log, None, None]:
    """Keep the log of the migration on this host, which is its *role*, meanwhile; what is there is continued.

    :param wanted: write it; else it can be looked at only (:func:`shown`).
    """
    log = Log(migration_id, role, wanted=wanted)
    _us.logs.append(log)
    try:
        yield log
    except Exception as escaped:
        error(escaped)
        raise
    finally:
        _us.logs.remove(log)
        log.close()


def tell(event: str, /, **what: Any) -> None:
    """Something that an administrator wants to know."""
    _tell(event, 1, what)


def detail(event: str, /, **what: Any) -> None:
    """Something that an engineer wants to know."""
    _tell(event, 2, what)


def unexpected(what: str) -> None:
    """Something is about to be done that the program's own table does not provide for; it is done."""
    tell("unexpected", what=what)


@contextlib.contextmanager
def phase(name: str) -> Generator[None, None, None]:
    """A ``with`` block that is the phase *name*."""
    log = _now()
    before, began_ns = (log.phase if log else ""), time.monotonic_ns()
    if log:
        log.phase = name
    tell("phase", at="begin")
    how = "failed"
    try:
        yield
        how = "done"
    finally:
        detail("phase", at="end", how=how, ms=(time.monotonic_ns() - began_ns) / 1e6)
        if log:
            log.phase = before


def state(name: str, /, **what: Any) -> None:
    """The migration is in the state *name* now, if it was not before."""
    log = _now()
    if log is not None and log.state != name:
        log.state = name
        tell("state", **what)


def error(error: BaseException) -> None:
    """Something failed: with all that is known of it, CRIU's own logs too."""
    tell("error", **_of(error))
    if (log := _now()) is not None:
        log.keep_criu_logs()


def criu_in(images: Path) -> None:
    """CRIU writes its own logs to *images*; they are kept if something fails."""
    if (log := _now()) is not None:
        log.criu = images


def ended(outcome: str, text: str, /, **what: Any) -> None:
    """It is over on this host: in the log, and as one line in the system's.

    :param text: who moved what from where to where, and how it ended.
    """
    tell("ended", outcome=outcome, **what)
    if (log := _now()) is not None and log.path:
        severity = _SEVERITY.get(outcome, syslog.Severity.WARNING)
        syslog.say(f"migration {log.migration_id}: {text}", severity, _us.name)


def problems() -> list[str]:
    """What is lost of the log so far; a sentence, or none."""
    log = _now()
    return [log.problem] if log is not None and log.problem else []


def _now() -> Log | None:
    return _us.logs[-1] if _us.logs else None


def _tell(event: str, level: int, what: dict[str, Any]) -> None:
    if (log := _now()) is not None:
        log.tell(event, level, what)


def _of(error: BaseException) -> dict[str, Any]:
    from migrate import problems as what_is_told  # loads the library, which the agent does after its hello

    told = what_is_told.of(error)
    found: dict[str, Any] = {"kind": told.kind, "message": told.text, "in": told.phase, "host": told.host}
    found |= {"hint": told.hint, "details": list(told.details)}
    if isinstance(error, Refused):
        found["reasons"] = [f"{one.code} ({one.role}): {one.text}" for one in error.reasons]
    return found
