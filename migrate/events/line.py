"""One event of a migration: as a line of JSON for the log, and as text for people. Pure.

A line is complete in itself, so that the logs of both hosts can be joined and sorted: ``time`` is UTC of the host
that wrote it, ``monotonic_ns`` its clock that nobody sets, ``id`` the migration's name on both hosts, ``role`` the
host, ``by`` and ``pid`` the program, ``phase`` and ``state`` where the migration was, ``event`` what kind of thing
happened, and ``what`` the rest of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from migrate.units import utc

#: So much of a text, and so many of a list, are kept: some of it comes from the other host.
MOST_TEXT, MOST_OF_A_LIST = 2000, 50
_ENCODER = json.JSONEncoder(default=str)


@dataclass(frozen=True, slots=True)
class Event:
    """One.

    :ivar time_ns: UTC, since the epoch. :ivar monotonic_ns: of time.monotonic_ns().
    :ivar role: ``"origin"`` or ``"destination"``.
    :ivar by: the program that tells: ``"migrate"``, ``"migrate-agent"``, ``"migrate-guardian"``.
    :ivar phase: the step that is under way, or "". :ivar state: the last one that was reached, or "".
    :ivar what: the rest, JSON types.
    """

    time_ns: int
    monotonic_ns: int
    migration_id: str
    role: str
    by: str
    pid: int
    phase: str
    state: str
    event: str
    what: Mapping[str, Any]


def to_json(event: Event) -> bytes:
    """It as one line, with its line feed; ASCII, whatever its texts are."""
    fields = {
        "time": utc(event.time_ns),
        "monotonic_ns": event.monotonic_ns,
        "id": event.migration_id,
        "role": event.role,
        "by": event.by,
        "pid": event.pid,
        "phase": event.phase,
        "state": event.state,
        "event": event.event,
        "what": short(event.what),
    }
    return _ENCODER.encode(fields).encode() + b"\n"


def to_text(event: Event) -> str:
    """It for whoever looks on: the time of day, where, and what."""
    what = " ".join(f"{name}={_word(value)}" for name, value in short(event.what).items())
    return f"{utc(event.time_ns)[11:-1]} {event.phase or '-'}: {event.event} {what}".rstrip()


def short(value: Any) -> Any:
    """*value* with texts and lists cut to what is kept."""
    if isinstance(value, str):
        left = len(value) - MOST_TEXT
        return value if left <= 0 else f"{value[:MOST_TEXT]}... and {left} characters more"
    if isinstance(value, Mapping):
        return {str(name)[:MOST_TEXT]: short(one) for name, one in [*value.items()][:MOST_OF_A_LIST]}
    if isinstance(value, (list, tuple)):
        more = [f"and {len(value) - MOST_OF_A_LIST} more"] if len(value) > MOST_OF_A_LIST else []
        return [short(one) for one in value[:MOST_OF_A_LIST]] + more
    return value


def _word(value: Any) -> str:
    return value if isinstance(value, str) and value and " " not in value else _ENCODER.encode(value)
