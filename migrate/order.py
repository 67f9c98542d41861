"""Which message may come after which, as the destination takes them: read off the table of the steps. Pure.

The order holds between the messages that a step sends once. Those that it may send meanwhile, pieces and questions,
come anywhere in between and change nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from migrate.journal.entry import Entry
from migrate.states import GIVEN_AWAY
from migrate.steps import STEPS, Step

#: Messages that may come any number of times.
MEANWHILE = frozenset(kind for step in STEPS for kind in step.meanwhile)
#: Calls a migration off that has left something on the destination; before that it is enough to say goodbye.
ABORT, GOODBYE = "abort", "goodbye"
#: Before the first message.
START = ""
#: What the agent goes on from when something of it has failed: much may be on its way that is of no use any more.
FAILED = "failed"
#: The only question of a session that moves nothing.
ASK = "ask"


def _follows() -> dict[str, set[str]]:
    """Message -> those that may come after it, on the way to the end and off it."""
    found: dict[str, set[str]] = {START: set()}
    last, begun = START, dict[str, set[str]]()
    for step in STEPS:
        for kind in step.sends:
            found[last].add(kind)
            last, found[kind] = kind, set()
            if begun or step.there:
                begun[kind] = found[kind]
            if step.after not in GIVEN_AWAY:
                found[kind].add(ABORT if begun else GOODBYE)
        found[last] |= set(step.meanwhile)
    found[ABORT] = found["commit"]  # nothing but the end, and what is on its way
    found[FAILED] = set[str]().union(*begun.values())
    found["hello"].add(ASK)
    found[ASK] = {ASK, GOODBYE}
    return found


#: A message, START or FAILED -> what may come after it.
FOLLOWS: Mapping[str, frozenset[str]] = {kind: frozenset(others) for kind, others in _follows().items()}


def _rows() -> dict[str, list[Step]]:
    """Message -> the steps to which what it has the destination do may belong.

    Of one that is sent once that is the step that waits for the answer.
    """
    found: dict[str, list[Step]] = {}
    asked: list[str] = []
    for step in STEPS:
        asked += step.sends
        if step.waits:
            found |= {kind: [step] for kind in asked}
            asked.clear()
        for kind in step.meanwhile:
            found.setdefault(kind, []).append(step)
    return found


_ROWS = _rows()
#: A message of the table -> its step; "" where there are several: in which it came the origin knows.
STEP_OF: Mapping[str, str] = {kind: rows[0].action if len(rows) == 1 else "" for kind, rows in _ROWS.items()}
#: A message of the table -> the kinds of entries that the destination may journal for it, in this order.
JOURNALLED: Mapping[str, tuple[type[Entry], ...]] = {
    kind: tuple(entry for row in rows for entry in row.there) for kind, rows in _ROWS.items()
}
