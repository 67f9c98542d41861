"""``migrate ps``: a process tree with connections as lines of a table, and as JSON. Pure."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from migrate.errors import Reason
from migrate.report.text import clean
from migrate.units import size

#: Where nobody says otherwise; what does not fit in is cut, or goes on in the next line.
COLUMNS = 80
_NARROWEST = 40
_INDENT = " " * 8
#: So many places are told, and the others counted.
_MOST = 3
_HEAD = f"{'PID':>7} {'PROGRAM':<15} {'USER':<10} {'CONN':>5} {'MEMORY':>10} {'MOVABLE':<7} "
_WORDS = {True: "yes", False: "no", None: "?"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tree.

    :ivar pid: of its root; of a container's first process.
    :ivar unit: the service of systemd that it runs in, or "". :ivar container: ``NAME@RUNTIME``, or "".
    :ivar listens: where it listens. :ivar addresses: where its connections are. :ivar connections: how many.
    :ivar memory_bytes: what a move would carry.
    :ivar movable: whether nothing on this host is in the way; None where that was not looked at.
    :ivar reasons: what is.
    """

    pid: int
    program: str
    user: str
    unit: str = ""
    container: str = ""
    listens: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    connections: int = 0
    memory_bytes: int = 0
    movable: bool | None = None
    reasons: list[Reason] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the fields of a line of ``--json``."""
        found = dataclasses.asdict(self)
        found["reasons"] = [{**dataclasses.asdict(one), "pids": list(one.pids)} for one in self.reasons]
        return found


def head(columns: int = COLUMNS) -> str:
    """The first line of the table."""
    return _cut(f"{_HEAD}UNIT OR CONTAINER", columns)


def lines(row: Row, columns: int = COLUMNS) -> list[str]:
    """A tree: who it is, where it listens and is connected, and the first reason why it cannot be moved."""
    columns = max(columns, _NARROWEST)
    first = (
        f"{row.pid:>7} {_cut(row.program, 15):<15} {_cut(row.user, 10):<10} {row.connections:>5}"
        f" {size(row.memory_bytes):>10} {_WORDS[row.movable]:<7} {row.container or row.unit}"
    )
    told = []
    if row.listens:
        told.append(f"listens on {_some(row.listens)}")
    if row.addresses:
        told.append(f"connected at {_some(row.addresses)}")
    if row.reasons:
        more = len(row.reasons) - 1
        rest = f" ({more} more reason{'s' * (more > 1)})" if more else ""
        told.append(f"{row.reasons[0].text}{rest}")
    wrapped = [line for text in told for line in _wrapped(clean(text), columns)]
    return [_cut(clean(first).rstrip(), columns), *wrapped]


def _wrapped(text: str, columns: int) -> list[str]:
    return textwrap.wrap(text, columns, initial_indent=_INDENT, subsequent_indent=f"{_INDENT}  ")


def _some(places: Sequence[str]) -> str:
    more = len(places) - _MOST
    return ", ".join(places[:_MOST]) + (f" and {more} more" if more > 0 else "")


def _cut(text: str, columns: int) -> str:
    text = clean(text)
    return text if len(text) <= columns else f"{text[: columns - 1]}…"
